"""`python -m tests.bench.bench_dedup`: near-duplicates and decontamination, in CPU seconds of one thread.

DEDUP_PYTHON may name the Python of an environment that holds datatrove (with spacy) and datasketch, for peers.
"""

import argparse
import contextlib
import io
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1")

from scripts.clean.benchmarks import Passage
from scripts.clean.decontaminate import Decontaminator
from scripts.recipe.clean import Decontamination
from scripts.recipe.near import NearDuplicates

ROOT = Path(__file__).resolve().parents[2]
_LETTERS_A_TOKEN = 4.05
"""Bytes of English a Llama-2 token (data reference); the synthetic words have no tokenizer of their own."""


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="?", type=int, default=10_000)
    parser.add_argument("--memory", type=int, help="only measure the peak memory of so many rows")
    args = parser.parse_args()
    if args.memory:
        _memory(args.memory)
        return
    _near(args.rows)
    for rows in (50_000, 200_000):
        command = [sys.executable, "-m", "tests.bench.bench_dedup", "--memory", str(rows)]
        print(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip(), flush=True)
    _decontaminate()


class Writer:
    """Draws words of a vocabulary with Zipf's frequencies, so that texts look like English to a hash."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        letters = "etaoinshrdlucmfwypvbgk"
        self._vocabulary = ["".join(self._random.choices(letters, k=2 + i % 9)) for i in range(30_000)]
        total = 0.0
        self._weights = [total := total + 1 / (i + 10) for i in range(len(self._vocabulary))]

    def words(self, count: int) -> list[str]:
        """Return `count` words."""
        return self._random.choices(self._vocabulary, cum_weights=self._weights, k=count)

    def pair(self, count: int) -> tuple[str, str]:
        """Return a text and a copy whose 5-grams have a Jaccard similarity from 0.80 to 0.82."""
        words = self.words(count)
        changed = int(count * 0.2 / 1.8 / 5)  # each replaced word takes 5 of n 5-grams: J = (n - 5k) / (n + 5k)
        copy = list(words)
        for k in range(changed):
            copy[6 + k * (count - 12) // changed] = f"x{self._random.randrange(10**9)}"
        return " ".join(words), " ".join(copy)


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU time of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def _ours(texts: list[str], folder: Path) -> list[int]:
    with NearDuplicates(folder / "shingles", 7, 0.8) as near:
        for number, text in enumerate(texts):
            near.add(str(number), text)
        return [int(name) for name in near.found()]


def _near(rows: int) -> None:
    writer, pairs = Writer(3), rows // 10
    texts = [" ".join(writer.words(280)) for _ in range(rows - 2 * pairs)]
    texts += [text for _ in range(pairs) for text in writer.pair(280)]
    size = sum(map(len, texts)) / rows
    print(f"near-duplicates: {rows:,} rows of {size:,.0f} bytes, {pairs:,} planted pairs at Jaccard 0.80 to 0.82")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "docs.json").write_text(json.dumps(texts))
        _ours(texts[-2:], folder)  # compile
        removed: list[int] = []
        best = min(cpu_seconds(lambda: removed.__setitem__(slice(None), _ours(texts, folder))) for _ in range(3))
        _print("ours, true Jaccard at least 0.8", rows, pairs, best, removed)
        python = os.environ.get("DEDUP_PYTHON")
        if not python:
            print("  datatrove, datasketch: not measured; name their environment's Python in DEDUP_PYTHON")
        for peer in ("datatrove", "datasketch") if python else ():
            command = [str(python), "-m", "tests.bench.peer_dedup", peer, str(folder / "docs.json"), str(folder / peer)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"  {peer}: failed: {done.stderr.strip().splitlines()[-1]}")
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            _print(f"{peer}, 16 x 7", rows, pairs, found["cpu_s"], found["removed"], best)


def _print(name: str, rows: int, pairs: int, seconds: float, removed: list[int], best: float = 0.0) -> None:
    planted = {(number - (rows - 2 * pairs)) // 2 for number in removed if number >= rows - 2 * pairs}
    false = sum(number < rows - 2 * pairs for number in removed)
    beside = f", ours {seconds / best:.1f} times as fast" if best else ""
    print(
        f"  {name:34} {rows / seconds:9,.0f} rows a CPU second, recall {len(planted) / pairs:.3f}, "
        f"{false} innocent rows{beside}",
        flush=True,
    )


def _memory(rows: int) -> None:
    """Print the peak memory of `rows` rows of which a tenth are copies, made one by one."""
    writer = Writer(5)
    base = [writer.words(280) for _ in range(512)]
    with tempfile.TemporaryDirectory() as name, NearDuplicates(Path(name) / "shingles", 7, 0.8) as near:
        near.add("first", " ".join(base[0]))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        for number in range(rows):
            copied = number - number % 10 if number % 10 == 1 else number
            draw = random.Random(copied)
            text = [word for _ in range(7) for word in draw.choice(base)[draw.randrange(240) :][:40]]
            near.add(f"source-{number:016x}", " ".join(text))
        found = near.found()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  memory: {rows:,} rows, {len(found):,} near-duplicates: {peak - before:.0f} MiB above {before:.0f} MiB")


def _decontaminate() -> None:
    writer = Writer(11)
    draw = random.Random(12)
    passages = [writer.words(draw.randrange(20, 90)) for _ in range(40_000)]
    rows = [" ".join(writer.words(draw.randrange(50, 600))) for _ in range(20_000)]
    planted = []
    for number in range(0, len(rows), 20):
        source = draw.choice(passages)
        start = draw.randrange(len(source) - 12)
        rows[number] += " " + " ".join(source[start : start + 13])
        planted.append(number)
    items = [[Passage(" ".join(words), True)] for words in passages]
    found = Decontaminator(Decontamination(), {"synthetic/task": items})
    found.search(" ".join(passages[0]))  # compile
    size = sum(map(len, rows)) / 1e6
    grams = sum(len(words) - 12 for words in passages)
    print(f"decontamination: {size:.0f} MB in {len(rows):,} rows against {grams / 1e6:.2f}M 13-grams")
    hits: list[bool] = []
    seconds = min(cpu_seconds(lambda: hits.extend(bool(found.search(row)) for row in rows)) for _ in range(3))
    _print_hits("ours", size, seconds, hits[: len(rows)], planted)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            from lm_eval.decontamination.janitor import Janitor
    except ImportError as error:
        print(f"  lm-eval's Janitor: not measured ({error})")
        return
    # A twentieth of the rows is enough: it takes 50 times as long.
    janitor = Janitor(ngram_n=13)
    with contextlib.redirect_stdout(io.StringIO()):  # it warns at every call
        for words in passages:
            janitor.register_contaminant(" ".join(words))
    few = [number for number in range(len(rows)) if number < len(rows) // 20]
    cleaned: list[bool] = []
    peer = cpu_seconds(lambda: cleaned.extend(janitor.clean_python(rows[n]) != [rows[n]] for n in few))
    part = sum(len(rows[n]) for n in few) / 1e6
    _print_hits("lm-eval 0.4.13, Janitor in Python", part, peer, cleaned, [n for n in planted if n in set(few)])
    print(f"  ours is {(size / seconds) / (part / peer):.0f} times as fast")


def _print_hits(name: str, size: float, seconds: float, hits: list[bool], planted: list[int]) -> None:
    recall = sum(hits[number] for number in planted) / len(planted)
    false = sum(hits) - sum(hits[number] for number in planted)
    print(
        f"  {name:34} {size / _LETTERS_A_TOKEN / seconds:8.1f}M tokens a CPU second ({size / seconds:.0f} MB), "
        f"{100 * recall:.1f} % of {len(planted):,} planted overlaps found, {false} innocent rows",
        flush=True,
    )


if __name__ == "__main__":
    main()
