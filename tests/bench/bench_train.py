"""Tokens a second of the training loop beside HF Trainer and TRL, same rows, precision and threads.

`python -m tests.bench.bench_train [STEPS] [ROUNDS]`: a Llama of 9.8 million parameters on a CPU, real text packed to
lines of 2,048 tokens (environment variable ATELIER_REAL_DATA). TRL_PYTHON may name the Python of an environment that
holds trl. Contenders take turns; a figure is the best median of its rounds. Isolation of rows is on for all.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from scripts.artifact.stage import Job
from scripts.recipe.train import Cadence, Launch, Levers, Numerics, Optimizer, TrainSpec
from scripts.train.build import build
from tests.bench.bench_gpu import run_child
from tests.bench.train_inputs import CONFIG, real_rows, write_base, write_pack

REAL = Path(os.environ.get("ATELIER_REAL_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
CAPACITY, WARM = 2048, 2
PEERS = Path(__file__).with_name("train_peers.py")


def main() -> None:
    """Print the table."""
    steps, rounds = (int(a) for a in (*sys.argv[1:], "10", "2")[:2]) if len(sys.argv) != 2 else (int(sys.argv[1]), 2)
    if not REAL.is_dir():
        sys.exit(f"bench_train: no folder {REAL}: set ATELIER_REAL_DATA to the real files")
    with tempfile.TemporaryDirectory(prefix="bench-train-") as temporary:
        root = Path(temporary)
        rows = real_rows(REAL, (steps + 1) * 2 * CAPACITY, CAPACITY)
        base = write_base(root / "base", CONFIG)
        packs = {n: root / f"pack{n}" for n in (1, 2)}
        lines = {n: write_pack(path, rows, CAPACITY, n, CONFIG["vocab_size"])[: steps * n] for n, path in packs.items()}
        for n, path in packs.items():
            _shorten(path, steps, n)
        task = _task(root, base, [[rows[r] for r in line] for line in lines[1]])
        tokens = [sum(len(rows[r]) for r in line) for line in lines[1]]
        contenders: dict[str, Any] = {
            "ours": lambda at: _ours(at, base, packs[1], 1, Levers()),
            "ours, full logits (loss_chunk 0)": lambda at: _ours(at, base, packs[1], 1, Levers(loss_chunk=0)),
            "HF Trainer, DataCollatorWithFlattening": lambda _: _peer(sys.executable, "trainer", task, tokens),
        }
        if os.environ.get("TRL_PYTHON"):
            contenders["TRL SFTTrainer, packing bfd"] = lambda _: _peer(os.environ["TRL_PYTHON"], "trl", task, tokens)
        contenders["ours, 2 processes"] = lambda at: _ours(at, base, packs[2], 2, Levers())
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
        for turn in range(rounds):
            for i, (name, run) in enumerate(contenders.items()):
                found[name].append(run(root / f"run{turn}-{i}"))
        _print(found)
        _determinism(packs[1], rounds)
    if not os.environ.get("TRL_PYTHON"):
        print("TRL: not measured; name an environment's Python in TRL_PYTHON")


def _print(found: dict[str, list[tuple[float, float]]]) -> None:
    best = {name: max(runs) for name, runs in found.items()}
    ours = best["ours"][0]
    print(f"{'':<42}{'tokens/s':>10}{'ours is':>9}{'first loss':>12}   medians of all rounds")
    for name, (speed, loss) in best.items():
        every = ", ".join(f"{s:,.0f}" for s, _ in found[name])
        print(f"{name:<42}{speed:10,.0f}{ours / speed:8.2f}x{loss:12.4f}   {every}", flush=True)


def _determinism(pack: Path, rounds: int) -> None:
    """Print what the deterministic switches cost on this processor; the loop alone, on the same lines, in turns."""
    os.environ["OMP_NUM_THREADS"] = "1"
    task = {"config": CONFIG, "pack": str(pack), "warm": WARM, "toy": True, "kernel": "sdpa", "compile": False}
    task |= {"policy": "none", "loss_chunk": Levers().loss_chunk, "numerics": {"precision": "fp32", "tf32": False}}
    runs = [{on: run_child({**task, "deterministic": on}) for on in (True, False)} for _ in range(rounds)]
    speeds = {on: max(run[on]["tokens_per_s"] for run in runs) for on in (True, False)}
    same = len({run[True]["digest"] for run in runs}) == 1
    print(f"deterministic switches: {speeds[True]:,.0f} tokens/s, without {speeds[False]:,.0f}; ", end="")
    print(f"weights of {rounds} runs with them {'are the same bits' if same else 'DIFFER'}", flush=True)


def _task(root: Path, base: Path, lines: list[list[list[int]]]) -> Path:
    content = {"base": str(base), "out": str(root / "peer"), "lines": lines, "threads": 1, "capacity": CAPACITY}
    content |= {"attention": "sdpa", "accumulation": 1, "bf16": False, "device": "cpu", "checkpointing": False}
    (root / "task.json").write_text(json.dumps(content))
    return root / "task.json"


def _shorten(pack: Path, steps: int, processes: int) -> None:
    """Keep the first `steps` steps of a schedule."""
    import numpy as np

    facts = json.loads((pack / "pack.json").read_text())
    facts |= {"steps": steps, "steps_per_epoch": steps}
    (pack / "pack.json").write_text(json.dumps(facts))
    offsets = np.load(pack / "schedule_offsets.npy")[: steps * processes + 1]
    np.save(pack / "schedule_offsets.npy", offsets)
    np.save(pack / "schedule_rows.npy", np.load(pack / "schedule_rows.npy")[: offsets[-1]])


def _ours(root: Path, base: Path, pack: Path, processes: int, levers: Levers) -> tuple[float, float]:
    """Return (median tokens/s after the warm-up, first loss) of a training through the stage's own door."""
    spec = TrainSpec(
        model="tuned",
        base="base",
        optimizer=Optimizer(learning_rate=1e-3, warmup_steps=0),
        numerics=Numerics(precision="fp32", tf32=False, gradient_checkpointing=False, attention="sdpa"),
        cadence=Cadence(eval_steps=10_000, save_steps=10_000),
        launch=Launch(device="cpu", processes_per_node=processes, threads_per_process=1),
        levers=levers,
        trackers=[],
        seed=1,
    )
    (root / "out").mkdir(parents=True)
    inputs = {"create/base": base, "pack/tuned": pack}
    build(Job(spec, inputs, root / "out", root / "work", processes))
    speeds = [json.loads(line)["tokens_per_s"] for line in (root / "work" / "speed.jsonl").read_text().splitlines()]
    first = json.loads((root / "out" / "metrics.jsonl").read_text().splitlines()[0])
    return statistics.median(speeds[WARM:]), first["loss"]


def _peer(python: str, kind: str, task: Path, tokens: list[int]) -> tuple[float, float]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run([python, str(PEERS), kind, str(task)], env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{kind} failed:\n{done.stderr[-2000:]}")
    result = json.loads(done.stdout.strip().splitlines()[-1])
    # TRL makes bins of its own, about as full: its steps count as the mean line.
    mean = sum(tokens) / len(result["seconds"])
    counts = tokens if len(tokens) == len(result["seconds"]) and kind == "trainer" else [mean] * len(result["seconds"])
    speeds = [n / s for n, s in zip(counts, result["seconds"], strict=True)]
    return statistics.median(speeds[WARM:]), result["losses"][0]


if __name__ == "__main__":
    main()
