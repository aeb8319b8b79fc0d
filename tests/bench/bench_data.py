"""Clean -> mix -> pack of a synthetic corpus, through the stages' own command lines.

`python -m tests.bench.bench_data [MILLION_TOKENS]` (default 5; the corpus is drawn first, not timed). Jobs run as
Snakemake would run them on two cores: the sources side by side, then mix, then pack.
PACK_PEERS_PYTHON may name the Python of an environment that holds `datasets`, `tokenizers`, `trl` and `numpy`: the
same steps by `datasets.map`, in the same run.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scripts.artifact.digest import SUMS, format_sums, hash_files, payload_files
from scripts.recipe.clean import CleanSpec
from scripts.recipe.mix import MixSpec
from scripts.recipe.pack import PackSettings, PackSpec
from scripts.recipe.tokenizer_files import write_tokenizer_files
from tests.bench.corpus import KINDS, write_corpus
from tests.conftest import ROOT

REAL = Path(os.environ.get("ATELIER_REAL_DATA", ROOT.parent / "shared" / "data"))
CORES = 2


def main() -> None:
    """Draw the corpus, run the stages, print the table, delete everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("million_tokens", nargs="?", type=float, default=5.0)
    parser.add_argument("--keep", type=Path, help="folder to work in and to leave behind")
    args = parser.parse_args()
    if not (REAL / "llama2_tokenizer.model").is_file():
        sys.exit(f"{REAL}: holds no llama2_tokenizer.model; set ATELIER_REAL_DATA")
    root = args.keep or Path(tempfile.mkdtemp(prefix="bench-data-"))
    try:
        results = root / "results" / "bench"
        if not (results / "download").is_dir():
            prepare(results, int(args.million_tokens * 1e6))
        ours(results)
        peers = os.environ.get("PACK_PEERS_PYTHON")
        if peers:
            peer(peers, results)
        else:
            print("datasets.map: not run; set PACK_PEERS_PYTHON")
    finally:
        if not args.keep:
            shutil.rmtree(root)


def prepare(results: Path, tokens: int) -> None:
    """Write the corpus and the tokenizer as download artifacts."""
    started = time.perf_counter()
    folders = [*write_corpus(results / "download", tokens).values(), results / "download" / "llama"]
    folders[-1].mkdir()
    write_tokenizer_files((REAL / "llama2_tokenizer.model").read_bytes(), folders[-1], 4096)
    for folder in folders:
        (folder / SUMS).write_text(format_sums(hash_files(folder, payload_files(folder), CORES)), encoding="utf-8")
    size = sum(path.stat().st_size for folder in folders for path in folder.iterdir())
    print(
        f"corpus: about {tokens / 1e6:g} million tokens, {size / 1e6:,.0f} MB, in {time.perf_counter() - started:.0f} s"
    )


def ours(results: Path) -> None:
    """Run clean, mix and pack; print wall time, CPU time and peak memory of each, and tokens a second of all."""
    specs = {name: CleanSpec.model_validate({"source": name, "read": {"adapter": kind.adapter}, "seed": 1})
             for name, kind in KINDS.items()}  # fmt: skip
    started = time.perf_counter()
    with ThreadPoolExecutor(CORES) as pool:
        list(
            pool.map(
                lambda name: stage(results, "clean", name, specs[name].model_dump_json(), [f"download/{name}"], 1),
                specs,
            )
        )
    cleaned = time.perf_counter()
    mix = MixSpec.model_validate({"mixture": "mixture", "sources": {name: {} for name in KINDS}, "seed": 1})
    stage(results, "mix", "mixture", mix.model_dump_json(), [f"clean/{name}" for name in KINDS], CORES)
    mixed = time.perf_counter()
    pack = PackSpec(model="packed", mixture="mixture", base="llama", settings=PackSettings(), processes=8, seed=1)
    stage(results, "pack", "packed", pack.model_dump_json(), ["mix/mixture", "download/llama"], CORES)
    packed = time.perf_counter()
    facts = json.loads((results / "pack" / "packed" / "pack.json").read_text(encoding="utf-8"))
    tokens = facts["train_tokens"] + facts["validation_tokens"]
    print(f"{'stage':<20}{'wall s':>8}{'CPU s':>8}{'peak RSS MiB':>14}{'workers MiB':>13}")
    busy = 0.0
    for name in [*(f"clean/{name}" for name in KINDS), "mix/mixture", "pack/packed"]:
        ran = json.loads((results / name / "provenance.json").read_text(encoding="utf-8"))
        peak, children = ran["peak_rss_bytes"] / 2**20, ran["children_peak_rss_bytes"] / 2**20
        busy += ran["cpu_seconds"]
        print(f"{name:<20}{ran['seconds']:8.1f}{ran['cpu_seconds']:8.1f}{peak:14.0f}{children:13.0f}")
    for label, seconds in (("clean", cleaned - started), ("mix", mixed - cleaned), ("pack", packed - mixed)):
        print(f"{label:<20}{seconds:8.1f} s wall")
    whole = packed - started
    print(f"CPU: {busy:.1f} s of all jobs, {tokens / busy:,.0f} tokens a CPU second")
    print(
        f"{tokens:,} tokens packed ({facts['dropped']['too_long']} rows too long) in {whole:.1f} s: "
        f"{tokens / whole:,.0f} tokens a second; slots filled {100 * facts['packing_efficiency']:.3f} %"
    )


def stage(results: Path, name: str, artifact: str, spec: str, inputs: list[str], threads: int) -> None:
    """Run one job as its rule does."""
    target = results / name / artifact / SUMS
    command = [
        sys.executable,
        "-m",
        f"scripts.{name}",
        "--spec",
        spec,
        "--threads",
        str(threads),
        "--output",
        str(target),
    ]
    target.unlink(missing_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ATELIER_REBUILD": "1"}
    done = subprocess.run(
        [*command, "--inputs", *(str(results / i / SUMS) for i in inputs)],
        cwd=results, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{name}/{artifact}: {done.stderr[-2000:]}")


def peer(python: str, results: Path) -> None:
    """Run `datasets.map` over the chats, in a process of its own, beside our clean, mix and pack of the same file."""
    chats = results / "download" / "chats" / "chats.json"
    program = ROOT / "tests" / "bench" / "data_peers.py"
    cache = results / "peer-cache"
    arguments = ["map", str(chats), str(results / "download" / "llama" / "tokenizer.json"), "4096", str(cache)]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "HF_HOME": str(cache)}
    done = subprocess.run(
        [python, str(program), *arguments], env=environment, capture_output=True, text=True, check=False
    )
    shutil.rmtree(cache, ignore_errors=True)
    if done.returncode:
        print(f"datasets.map: failed: {done.stderr[-800:]}")
        return
    found = json.loads(done.stdout.splitlines()[-1])
    print(
        f"datasets.map, chats only, render -> encode_batch_fast -> TRL bfd: {found['tokens']:,} tokens in "
        f"{found['wall_s']:.1f} s wall, {found['cpu_s']:.1f} CPU s: {found['tokens'] / found['wall_s']:,.0f} tokens a "
        f"second, {found['tokens'] / found['cpu_s']:,.0f} a CPU second; peak RSS {found['rss_mib']:.0f} MiB"
    )


if __name__ == "__main__":
    main()
