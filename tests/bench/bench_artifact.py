"""Verification beside openssl and model_signing; 100,000 unchanged files; explain and diff of 1,000 artifacts.

python -m tests.bench bench_artifact [GB to hash, default 2]
Files lie in TMPDIR: name a folder in memory (/dev/shm) to time hashing and not a disk.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from scripts.artifact.code import stage_code
from scripts.artifact.digest import FACTS, RECORD, SUMS, format_sums, hash_files, payload_files, sha256_bytes
from scripts.artifact.environment import stage_lock
from scripts.artifact.explain import explain
from scripts.artifact.lock import Entry, format_lock
from scripts.artifact.record import key_of, write_record
from scripts.artifact.statcache import RACY_NS
from scripts.artifact.verify import begin, read_all
from scripts.recipe.base import Spec
from scripts.recipe.graph import Job

THREADS = os.cpu_count() or 1
ROUNDS = 3


def timed(work: Callable[[], object]) -> float:
    """Return wall seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def command(*args: object) -> float:
    """Return the wall seconds of one command of scripts.artifact, its start included."""
    line = [sys.executable, "-m", "scripts.artifact", *map(str, args)]
    return timed(lambda: subprocess.run(line, capture_output=True, check=False))


def artifact(folder: Path, inputs: list[list[str]] | None = None) -> str:
    """Write the records of a folder that holds its payload; return its value."""
    sums = format_sums(hash_files(folder, payload_files(folder), THREADS))
    name = folder.relative_to(folder.parents[1]).as_posix()
    fields: dict[str, Any] = {"format": 1, "stage": "clean", "spec": Spec().identity(), "inputs": inputs or []}
    fields |= {"code": stage_code("clean"), "lock": stage_lock("clean")}
    record = {**fields, "name": name, "key": key_of(fields), "value": sha256_bytes(sums.encode())}
    write_record(folder / RECORD, {**record, "bytes": 1, "counts": {}, "tensors": {}})
    write_record(folder / FACTS, {"seconds": 1.0})
    (folder / SUMS).write_text(sums)
    return str(record["value"])


def openssl_rate() -> float:
    """Return GB/s of `openssl speed` with as many processes as we use threads, all in memory."""
    line = ["openssl", "speed", "-multi", str(THREADS), "-evp", "sha256", "-bytes", "16384", "-seconds", "2"]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    kilobytes = re.findall(r"([0-9.]+)k\s*$", done.stdout, re.M)
    return float(kilobytes[-1]) / 1e6


def hashing(folder: Path, gigabytes: float) -> None:
    """Print rates of reading and hashing the same files, in turns."""
    from model_signing import hashing as oms

    model = folder / "results" / "r" / "clean" / "model"
    model.mkdir(parents=True)
    block = os.urandom(1 << 24)
    for shard in range(8):
        with (model / f"model-{shard}.bin").open("wb") as handle:
            for number in range(int(gigabytes * 1e9 / 8 / len(block))):
                handle.write(number.to_bytes(8, "little") + block[8:])
    artifact(model)
    size = sum((model / name).stat().st_size for name in payload_files(model)) / 1e9
    ways: dict[str, Callable[[], object]] = {
        "verify --deep, reading and hashing": lambda: list(read_all([begin(model, deep=True)], THREADS)),
        "sha256sum, one process": lambda: subprocess.run(["sha256sum", "--quiet", "-c", SUMS], cwd=model, check=True),
        "model_signing, whole files": lambda: oms.Config().use_file_serialization(max_workers=THREADS).hash(model),
        "model_signing, 1 GB shards": lambda: oms.Config().use_shard_serialization(max_workers=THREADS).hash(model),
    }
    rates: dict[str, list[float]] = {name: [] for name in ("openssl speed, from memory", *ways)}
    for _ in range(ROUNDS):
        rates["openssl speed, from memory"].append(openssl_rate())
        for name, work in ways.items():
            rates[name].append(size / timed(work))
    ours = rates["verify --deep, reading and hashing"]
    print(f"{size:.2f} GB in 8 files, {THREADS} threads, {ROUNDS} rounds in turns")
    for name, found in rates.items():
        ratios = " ".join(f"{mine / other:.2f}" for mine, other in zip(ours, found, strict=True))
        print(f"{name:<36} best {max(found):5.2f} GB/s; ours is {ratios} of it, round by round")
    shutil.rmtree(model)


def unchanged(folder: Path) -> None:
    """Print the time of `verify` on 100,000 files that have not changed."""
    root = folder / "results" / "many"
    for number in range(100):
        place = root / "clean" / f"source-{number:03}"
        place.mkdir(parents=True)
        for row in range(1000):
            (place / f"file-{row:04}.txt").write_text(f"{number} {row}\n")
        artifact(place)
    time.sleep(RACY_NS / 1e9 + 0.1)
    first = command("verify", root)
    again = [command("verify", root) for _ in range(ROUNDS)]
    start = [command("verify", "--help") for _ in range(ROUNDS)]
    print(f"verify, 100,000 files in 100 artifacts: first {first:.2f} s; unchanged best {min(again):.2f} s, median")
    print(f"  {sorted(again)[1]:.2f} s, of which the start of the program {min(start):.2f} s")
    shutil.rmtree(root)


def thousand(folder: Path) -> None:
    """Print the time of `diff` of two locks, and of `explain`, with 1,000 artifacts."""
    entries = [Entry("clean", f"s{n:04}", f"{n:064x}", f"{n + 1:064x}", n) for n in range(1000)]
    (folder / "a.lock").write_text(format_lock(entries))
    (folder / "b.lock").write_text(format_lock([*entries[:500], Entry("clean", "s0500", "0" * 64, "1" * 64, 1)]))
    diff = min(command("diff", folder / "a.lock", folder / "b.lock") for _ in range(ROUNDS))
    print(f"diff of two locks, 1,000 artifacts: best {diff:.2f} s")
    root = folder / "results" / "r"
    jobs: dict[tuple[str, str], Job] = {}
    above: list[list[str]] = []
    for number in range(1000):
        place = root / "clean" / f"s{number:04}"
        place.mkdir(parents=True)
        (place / "rows.txt").write_text(str(number))
        value = artifact(place, above)
        inputs = tuple(("clean", name.split("/")[1]) for name, _ in above)
        jobs["clean", place.name] = Job("clean", place.name, Spec(), inputs)
        above = [[f"clean/{place.name}", value]]
    target, graph = ("clean", "s0999"), SimpleNamespace(jobs=jobs)
    explained = [timed(lambda: explain(graph, root, target)) for _ in range(ROUNDS + 1)]  # type: ignore[arg-type]
    assert explain(graph, root, target) == []  # type: ignore[arg-type]
    print(f"explain, a chain of 1,000 artifacts: first {explained[0]:.2f} s, again best {min(explained[1:]):.2f} s")


def main() -> None:
    """Run all three."""
    with tempfile.TemporaryDirectory() as name:
        hashing(Path(name), float(sys.argv[1]) if len(sys.argv) > 1 else 2.0)
        unchanged(Path(name))
        thousand(Path(name))


if __name__ == "__main__":
    main()
