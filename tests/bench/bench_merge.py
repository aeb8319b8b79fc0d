"""Speed of the merge beside the floor of the same machine in the same run.

`python -m tests.bench.bench_merge [GB] [--rounds N]`: two random bf16 models of GB each (default 0.5). Every contender
runs once a round, in turns; its best round counts (from the second on, the compiled loops are read from where the
first put them, as by later merges of a recipe). A first run of the floor is thrown away: it warms the page cache,
and on a virtual machine memory that its host has never backed is written ten times slower. TMPDIR=/dev/shm (where 3 x
GB fit) takes the disk out of the comparison. Nobody flushes to the disk here: mergekit never does, and ours does it
when the artifact is published. MERGEKIT_PYTHON may name the Python of an environment that holds mergekit, for a peer.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_HIDDEN, _INNER, _VOCABULARY = 2048, 5504, 4096
_LAYER_PARAMETERS = 4 * _HIDDEN**2 + 3 * _HIDDEN * _INNER + 2 * _HIDDEN
_SHARD = 1_000_000_000


def main() -> None:
    """Make the models, run each contender in a process of its own, print the table, delete everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gigabytes", nargs="?", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(_child(args.child[0], Path(args.child[1]), args.threads)))
        return
    root = Path(tempfile.mkdtemp(prefix="bench-merge-"))
    try:
        size = sum(_make(root / name, args.gigabytes, seed) for seed, name in enumerate(("first", "second"))) / 2
        print(
            f"2 x {size / 1e9:.2f} GB bf16 in, the same out; {args.threads} threads, warm cache, best of {args.rounds}"
        )
        _run("floor", root, args.threads)
        rounds = [{kind: _run(kind, root, args.threads) for _, kind in _contenders()} for _ in range(args.rounds)]
        _table(rounds, size)
        if not os.environ.get("MERGEKIT_PYTHON"):
            print("mergekit: not measured; name an environment's Python in MERGEKIT_PYTHON")
    finally:
        shutil.rmtree(root)


def _table(rounds: list[dict[str, dict[str, float]]], size: float) -> None:
    """Print the best round of every contender, and its ratio to the best of the floor."""
    best = {kind: min((found[kind] for found in rounds), key=lambda r: r["wall_s"]) for kind in rounds[0]}
    print(f"{'':<34}{'wall s':>8}{'x floor':>9}{'CPU s':>8}{'in-process s':>14}{'peak RSS MiB':>14}{'GB/s':>7}")
    for label, kind in _contenders():
        found = best[kind]
        print(
            f"{label:<34}{found['wall_s']:8.2f}{found['wall_s'] / best['floor']['wall_s']:9.1f}{found['cpu_s']:8.2f}"
            f"{found['inside_s']:14.2f}{found['rss_mib']:14.0f}{3 * size / found['wall_s'] / 1e9:7.2f}",
            flush=True,
        )


def _contenders() -> list[tuple[str, str]]:
    ours = [
        ("floor: read A and B, write C", "floor"),
        ("ours, bytes only", "bytes"),
        ("ours, figures, all bytes hashed", "hashed"),
        ("ours, and both inputs verified", "verified"),
    ]
    return [*ours, ("mergekit linear", "mergekit")] if os.environ.get("MERGEKIT_PYTHON") else ours


def _config(layers: int) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": _HIDDEN,
        "intermediate_size": _INNER,
        "num_hidden_layers": layers,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "vocab_size": _VOCABULARY,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }


def _make(folder: Path, gigabytes: float, seed: int) -> int:
    """Write a random model and return the bytes of its weights. Shard files come from the stage's own writer."""
    import torch

    from scripts.merge.layout import LlamaShapes, llama_tensors
    from scripts.merge.shards import INDEX, index_text, split

    layers = max(1, round(gigabytes * 1e9 / 2 / _LAYER_PARAMETERS))
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(_config(layers)))
    tensors = llama_tensors(LlamaShapes.of(_config(layers)))
    shards = split([(n, "BF16", s, 2 * torch.Size(s).numel()) for n, s in tensors.items()], _SHARD)
    generator = torch.Generator().manual_seed(seed)
    total = 0
    for shard in shards:
        with (folder / shard.file).open("wb") as handle:
            handle.write(shard.header)
            for entry in shard.entries:
                values = torch.randn(entry.shape, generator=generator).mul_(0.02).bfloat16()
                handle.write(values.view(torch.uint8).numpy().data)
                total += entry.stop - entry.start
    if len(shards) > 1:
        (folder / INDEX).write_text(index_text(shards))
    return total


def _run(kind: str, root: Path, threads: int) -> dict[str, float]:
    """Run one contender in its own process and return its wall time and peak memory."""
    command = [sys.executable, "-m", "tests.bench.bench_merge", "--threads", str(threads), "--child", kind, str(root)]
    if kind == "mergekit":
        command = _mergekit(root)
    begun = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    wall = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if done.returncode:
        sys.exit(f"{kind} failed:\n{done.stderr[-2000:]}")
    shutil.rmtree(root / "out")
    last = json.loads(done.stdout.strip().splitlines()[-1])
    return {"wall_s": wall, "cpu_s": cpu, "inside_s": last["inside_s"], "rss_mib": last["rss_mib"]}


def _mergekit(root: Path) -> list[str]:
    weights = "".join(f"  - model: {root / n}\n    parameters: {{weight: 0.5}}\n" for n in ("first", "second"))
    config = root / "mergekit.yaml"
    config.write_text(f"models:\n{weights}merge_method: linear\ndtype: float32\nout_dtype: bfloat16\n")
    code = (
        "import json, sys, time\nbegun = time.perf_counter()\n"
        "from mergekit.config import MergeConfiguration\nfrom mergekit.merge import run_merge\n"
        "from mergekit.options import MergeOptions\nimport yaml\n"
        "config = MergeConfiguration.model_validate(yaml.safe_load(open(sys.argv[1])))\n"
        "run_merge(config, sys.argv[2], MergeOptions(lazy_unpickle=True, copy_tokenizer=False))\n"
        "rss = int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) / 1024\n"
        "print(json.dumps({'inside_s': time.perf_counter() - begun, 'rss_mib': rss}))\n"
    )
    return [os.environ["MERGEKIT_PYTHON"], "-c", code, str(config), str(root / "out")]


def _child(kind: str, root: Path, threads: int) -> dict[str, float]:
    begun = time.perf_counter()
    {"floor": _floor, "bytes": _bytes_only}.get(kind, lambda r, t: _stage(r, t, kind == "verified"))(root, threads)
    return {"inside_s": time.perf_counter() - begun, "rss_mib": _peak_mib()}


def _peak_mib() -> float:
    """Return this program's peak memory. Not `ru_maxrss`: that one keeps the parent's peak across fork and exec."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _floor(root: Path, _: int) -> None:
    """Read every byte of A and B, and write as many as C has."""
    buffer = bytearray(1 << 22)
    (root / "out").mkdir()
    for name in ("first", "second"):
        for path in sorted((root / name).glob("*.safetensors")):
            with path.open("rb", buffering=0) as source:
                while source.readinto(buffer):
                    pass
    with (root / "out" / "c").open("wb", buffering=0) as target:
        left = sum(p.stat().st_size for p in (root / "first").glob("*.safetensors"))
        while left > 0:
            left -= target.write(memoryview(buffer)[: min(left, len(buffer))])


def _spec() -> object:
    from scripts.recipe.merge import MergeSpec

    gradients = {"lm_head": [0.5], "embed_tokens": [0.5], "self_attn": [0.2, 0.8], "mlp": [0.8, 0.2]}
    gradients |= {"layernorm": [0.5], "model.norm": [0.5]}
    operations = [{"filter": name, "gradient_values": values} for name, values in gradients.items()]
    settings = {"model": "bench", "models": ["first", "second"], "operations": operations, "out_dtype": "bfloat16"}
    return MergeSpec.model_validate({**settings, "max_shard_bytes": _SHARD})


def _bytes_only(root: Path, threads: int) -> None:
    """The same reader, blender and writer without hashes."""
    from scripts.merge.chunks import Files
    from scripts.merge.models import open_model
    from scripts.merge.plan import make_plan
    from scripts.merge.stream import Blender
    from scripts.merge.write import write_shard
    from scripts.recipe.compiled import keep_compiled

    (root / "out").mkdir()
    keep_compiled(root / "compiled")
    plan = make_plan(_spec(), *(open_model(name, root / name) for name in ("first", "second")))  # type: ignore[arg-type]
    with Files() as files:
        blender = Blender(plan, files, threads)
        for shard in plan.shards:
            write_shard(root / "out", shard, blender, lambda _: None, hashing=False)


def _stage(root: Path, threads: int, verify: bool) -> None:
    """The stage itself, with or without a first verification of both inputs."""
    from scripts.artifact.digest import hash_files
    from scripts.artifact.stage import Job
    from scripts.merge.build import build

    if verify:
        # As the stage's door does it: the files of all inputs together.
        names = [p.relative_to(root).as_posix() for name in ("first", "second") for p in (root / name).iterdir()]
        hash_files(root, names, threads)
    (root / "out" / "payload").mkdir(parents=True)
    inputs = {f"train/{name}": root / name for name in ("first", "second")}
    build(Job(_spec(), inputs, root / "out" / "payload", root / "out" / "work", threads))  # type: ignore[arg-type, type-var]


if __name__ == "__main__":
    main()
