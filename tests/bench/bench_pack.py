"""`python -m tests.bench.bench_pack`: speed of tokenizing and packing, in CPU seconds of one thread.

Needs the real tokenizer and texts (environment variable ATELIER_REAL_DATA, default `../shared/data`).
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

# tokenizers and numpy would otherwise use all cores, and the figures are per core.
os.environ.update(RAYON_NUM_THREADS="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")

import numpy as np
import tokenizers
from numpy.typing import NDArray

from scripts.pack.best_fit import best_fit
from scripts.pack.consecutive import permutation, walked
from scripts.recipe.tokenizer import FastTokenizer, SentencePieceTokenizer
from scripts.recipe.tokenizer_files import write_tokenizer_files

REAL = Path(os.environ.get("ATELIER_REAL_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
CAPACITY = 4096
ROUNDS = 5


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU time of one call, all threads of the process together."""
    start = time.process_time()
    work()
    return time.process_time() - start


def paragraphs() -> list[str]:
    """Return the real stories in pieces of about 1,500 characters, like chat turns."""
    text = (REAL / "text" / "text_adventures.txt").read_text(encoding="utf-8")
    return [text[start : start + 1500] for start in range(0, len(text), 1500)]


def bench_tokenizers() -> None:
    """Print megabytes a CPU second of each way, and check that all give the same ids."""
    model = (REAL / "llama2_tokenizer.model").read_bytes()
    texts = paragraphs()
    size = sum(len(text.encode()) for text in texts) / 1e6
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer_files(model, Path(folder), CAPACITY)
        definition = (Path(folder) / "tokenizer.json").read_text(encoding="utf-8")
    fast = FastTokenizer(definition, "<s>", "</s>")
    plain = SentencePieceTokenizer(model, memo=False)
    memo = SentencePieceTokenizer(model)
    memo._seen = 1 << 30  # so many bytes are worth it
    continued = [False] * len(texts)
    memo.encode_all(["compile"], [False])
    batched = tokenizers.Tokenizer.from_str(definition)
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        new = SentencePieceTokenizer(model)
        new._seen = 1 << 30
        for name, work in (
            ("sentencepiece", lambda: [plain.encode(text) for text in texts]),
            ("tokenizers, encode", lambda: [fast.encode(text) for text in texts]),
            ("tokenizers, encode_batch_fast", lambda: batched.encode_batch_fast(texts, add_special_tokens=False)),
            ("word memo, cold", lambda new=new: new.encode_all(texts, continued)),
            ("word memo, warm", lambda new=new: new.encode_all(texts, continued)),
        ):
            best[name] = min(best.get(name, float("inf")), cpu_seconds(work))
    print(f"tokenizing {size:.2f} MB in {len(texts):,} texts, MB per CPU second, best of {ROUNDS} rounds in turns")
    for name, seconds in best.items():
        ratio = best["tokenizers, encode_batch_fast"] / seconds
        print(f"  {name:32} {size / seconds:7.2f}  {ratio:5.2f} times encode_batch_fast")
    ids, counts = memo.encode_all(texts, continued)
    differing = sum(
        not (np.array_equal(found, plain.encode(t)) and np.array_equal(fast.encode(t), plain.encode(t)))
        for t, found in zip(texts, np.split(ids, np.cumsum(counts)[:-1]), strict=True)
    )
    print(f"  texts with different ids: {differing}")


def bench_packing() -> None:
    """Print time and efficiency on rows of log-normal length, mean about 1,075 tokens, cut off at the capacity."""
    best_fit(np.arange(1, 9, dtype=np.int64), CAPACITY)  # compile
    for count in (100_000, 1_000_000):
        draws = np.random.Generator(np.random.Philox(7)).lognormal(6.62, 0.95, 2 * count).astype(np.int64) + 1
        lengths = draws[draws <= CAPACITY][:count]
        seconds = min(cpu_seconds(lambda lengths=lengths: best_fit(lengths, CAPACITY)) for _ in range(3))  # type: ignore[misc]
        offsets, _ = best_fit(lengths, CAPACITY)
        bins, tokens = len(offsets) - 1, int(lengths.sum())
        floor = max(-(-tokens // CAPACITY), int((lengths > CAPACITY // 2).sum()))
        print(
            f"best fit, {count:,} rows, mean {tokens / count:,.0f}: {seconds:.4f} s, {bins:,} bins (floor {floor:,}), "
            f"{100 * tokens / (bins * CAPACITY):.3f} % filled"
        )
        seconds = cpu_seconds(lambda n=count, sizes=lengths: walked(permutation(n, 43), sizes, 8 * CAPACITY))  # type: ignore[misc]
        batches = walked(permutation(count, 43), lengths, 8 * CAPACITY)
        fill = tokens / (len(batches) * 8 * CAPACITY)
        print(f"consecutive, {count:,} rows: {seconds:.3f} s an epoch, {100 * fill:.2f} % filled")
        if count == 100_000:
            peers(lengths)


def peers(lengths: NDArray[np.int64]) -> None:
    """Print the same of TRL and of axolotl's method, by the Python that PACK_PEERS_PYTHON names."""
    python = os.environ.get("PACK_PEERS_PYTHON")
    if not python:
        print("TRL: not run; set PACK_PEERS_PYTHON")
        return
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "lengths.npy", lengths)
        program = Path(__file__).with_name("data_peers.py")
        command = [python, str(program), "pack", f"{folder}/lengths.npy", str(CAPACITY)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"TRL: failed: {done.stderr[-800:]}")
        return
    for label, (bins, seconds) in json.loads(done.stdout.splitlines()[-1]).items():
        print(
            f"{label}, {len(lengths):,} rows: {seconds:.2f} s, {100 * lengths.sum() / (bins * CAPACITY):.3f} % filled"
        )


if __name__ == "__main__":
    if not (REAL / "llama2_tokenizer.model").is_file():
        sys.exit(f"{REAL}: holds no llama2_tokenizer.model; set ATELIER_REAL_DATA")
    bench_tokenizers()
    bench_packing()
