"""Scores of a tiny random Llama: against plain torch, and the same bytes twice."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from scripts.artifact.stage import Job, StageError
from scripts.benchmark.build import build
from scripts.benchmark.formats import multiple_choice
from scripts.benchmark.grade import mc2, tie_argmax
from scripts.benchmark.items import items_sha256
from scripts.recipe.benchmark import BenchmarkSpec, Task
from tests.demo_benchmarks import FOLDER
from tests.unit.benchmark_tiny_model import write_mix, write_model

ROOT = Path(__file__).resolve().parents[2]
TASKS = {
    "order": Task(format="multiple_choice", file="word_order.jsonl", limit=10, note="small"),
    "sums": Task(format="multiple_choice", file="arithmetic.jsonl", limit=1),
    "grade": Task(format="bigbench", file="grade.json", expect_items=3),
    "truth": Task(format="truthfulqa_mc2", file="mc.json"),
    "text": Task(format="bits_per_byte", expect_items=4),
}
ROWS = [
    ("r1", "tales", ["<|user|>Tell me of the harbour.", "<|model|>It was blue, said Mira."]),
    ("r2", "tales", ["<|user|>And then?", "<|model|>" + "The boat went on and on. " * 60]),
    ("r3", "letters", ["<|user|>Dear Elsa é,", "<|model|>thank you for the pears. 梨"]),
]
CHOICES = {"in the green garden": 0, "on a hill": 1, "at sea": 0}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("inputs")
    files = root / "files"
    files.mkdir()
    for name in ("word_order", "arithmetic"):
        (files / f"{name}.jsonl").write_bytes((FOLDER / f"{name}.jsonl").read_bytes())
    examples = [{"input": f"Where was {who}?", "target_scores": CHOICES} for who in ("Mira", "Pip", "Lena")]
    (files / "grade.json").write_text(json.dumps({"metrics": ["multiple_choice_grade"], "examples": examples}))
    targets = {"A pear is a fruit.": 1, "Pears grow on trees.": 1, "A pear is a stone.": 0}
    row = {"question": "What is a pear?", "mc1_targets": targets, "mc2_targets": targets}
    (files / "mc.json").write_text(json.dumps([row, {**row, "question": "What are pears?"}]))
    return {
        "create/tiny": write_model(root / "model"),
        "download/mini": files,
        "mix/one": write_mix(root / "one", ROWS),
        # The same letter again counts once; a new row of the same source counts.
        "mix/two": write_mix(root / "two", [ROWS[2], ("r4", "letters", ["Yours, Pip."])]),
    }


def run(inputs: dict[str, Path], out: Path, **changes: object) -> Job[BenchmarkSpec]:
    out.mkdir()
    settings = {"device": "cpu", "dtype": "float32", "batch_size": 4, "mixtures": ["one", "two"], **changes}
    spec = BenchmarkSpec.model_validate({"model": "tiny", "suite": "mini", "tasks": TASKS, **settings})
    job = Job(spec, inputs, out, out / "work", threads=2)
    build(job)
    return job


@pytest.fixture(scope="module")
def first(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Job[BenchmarkSpec]:
    return run(inputs, tmp_path_factory.mktemp("runs") / "first")


def likelihood(folder: Path, ids: list[int], begin: int) -> float:
    """Plain torch: sum of log-probabilities of ids[begin:], each given all before it."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        logp_TV = torch.log_softmax(model(torch.tensor([ids[:-1]])).logits[0].double(), dim=-1)
    return sum(float(logp_TV[t - 1, ids[t]]) for t in range(begin, len(ids)))


def samples(job: Job[BenchmarkSpec], task: str) -> list[dict[str, object]]:
    return [row for row in pq.read_table(job.out / "samples.parquet").to_pylist() if row["task"] == task]


def test_likelihoods_are_those_of_a_plain_forward_pass(first: Job[BenchmarkSpec], inputs: dict[str, Path]) -> None:
    folder = inputs["create/tiny"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    items = multiple_choice.render(FOLDER / "word_order.jsonl")[:3]
    for item, sample in zip(items, samples(first, "order"), strict=False):
        begin = len(tokenizer.encode(item.context))
        expected = [likelihood(folder, tokenizer.encode(c + t), begin) for c, t in item.requests()]
        assert sample["loglikelihoods"] == pytest.approx(expected, abs=1e-3)
        assert sample["gold"] == item.gold and sample["pick"] == expected.index(max(expected))


def test_bigbench_is_scored_without_bos_and_with_the_space_before_the_choice(
    first: Job[BenchmarkSpec], inputs: dict[str, Path]
) -> None:
    folder = inputs["create/tiny"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = "\nQ: Where was Mira?\n  choice: at sea\n  choice: in the green garden\n  choice: on a hill\nA:"
    begin = len(tokenizer.encode(prompt, add_special_tokens=False))
    ids = [tokenizer.encode(f"{prompt} {choice}", add_special_tokens=False) for choice in CHOICES]
    sample = samples(first, "grade")[1]  # Random(42) puts the first of three items there
    assert sample["loglikelihoods"] == pytest.approx([likelihood(folder, i, begin) for i in ids], abs=1e-3)


def test_metrics_follow_from_the_samples(first: Job[BenchmarkSpec]) -> None:
    tasks = json.loads((first.out / "results.json").read_text())["tasks"]
    assert {name: task["items"] for name, task in tasks.items()} == first.counts["items"]
    for name in ("order", "grade"):
        right = sum(row["pick"] == row["gold"] for row in samples(first, name))
        value = next(iter(tasks[name]["metrics"].values()))
        n = tasks[name]["items"]
        assert tasks[name]["correct"] == right and value["value"] == pytest.approx(right / n)
        assert value["stderr"] == pytest.approx(math.sqrt(value["value"] * (1 - value["value"]) / (n - 1)))
        assert value["chance"] == pytest.approx(1 / 3)
    for row in samples(first, "grade"):
        assert row["pick"] == tie_argmax(row["loglikelihoods"])  # type: ignore[arg-type]
    expected = [mc2(row["loglikelihoods"], [1, 1, 0]) for row in samples(first, "truth")]  # type: ignore[arg-type]
    truth = tasks["truth"]
    assert truth["metrics"]["mc2"]["value"] == pytest.approx(sum(expected) / 2) and truth["correct"] is None
    assert tasks["sums"]["metrics"]["acc"]["stderr"] is None  # a single item has no standard error
    assert tasks["order"]["note"] == "small"
    assert tasks["order"]["prompts_sha256"] == items_sha256(multiple_choice.render(FOLDER / "word_order.jsonl")[:10])


def test_bits_per_byte_is_a_plain_sum_over_windows(first: Job[BenchmarkSpec], inputs: dict[str, Path]) -> None:
    folder, length = inputs["create/tiny"], first.counts["max_length"]
    assert length == 256  # the model's own limit, below the recipe's 4096
    tokenizer = AutoTokenizer.from_pretrained(folder)
    bits, sizes = {}, {}
    for name, source, texts in [*ROWS, ("r4", "letters", ["Yours, Pip."])]:
        turns = [text + "</s>" * (n % 2) for n, text in enumerate(texts)]  # the model's end in its end token
        ids, total = tokenizer.encode("".join(turns)), 0.0  # BOS first
        # Windows of 256 predicted tokens; only the token before a window is seen from it, the last one aligns right.
        for start in range(1, len(ids), length):
            stop = min(start + length, len(ids))
            left = max(0, stop - length - 1) if start > 1 else 0
            total += likelihood(folder, ids[left:stop], start - left)
        bits[(source, name)], sizes[(source, name)] = -total / math.log(2), len("".join(texts).encode())
    metrics = json.loads((first.out / "results.json").read_text())["tasks"]["text"]["metrics"]
    assert metrics["bits_per_byte"]["value"] == pytest.approx(sum(bits.values()) / sum(sizes.values()), rel=1e-6)
    letters = [key for key in bits if key[0] == "letters"]
    expected = sum(bits[k] for k in letters) / sum(sizes[k] for k in letters)
    assert metrics["bits_per_byte/letters"]["value"] == pytest.approx(expected, rel=1e-6)


def test_a_second_run_writes_the_same_bytes(first: Job[BenchmarkSpec], inputs: dict[str, Path], tmp_path: Path) -> None:
    second = run(inputs, tmp_path / "second")
    for name in ("results.json", "samples.parquet"):
        assert (second.out / name).read_bytes() == (first.out / name).read_bytes()


def test_a_task_does_not_depend_on_its_neighbours(
    first: Job[BenchmarkSpec], inputs: dict[str, Path], tmp_path: Path
) -> None:
    alone = run(inputs, tmp_path / "alone", tasks={"grade": TASKS["grade"]})
    assert samples(alone, "grade") == samples(first, "grade")


def test_requests_that_lose_their_left_end_are_reported(inputs: dict[str, Path], tmp_path: Path) -> None:
    job = run(inputs, tmp_path / "short", tasks={"order": TASKS["order"]}, max_length=30)
    cut = job.counts["truncated_requests"]["order"]
    note = json.loads((job.out / "results.json").read_text())["tasks"]["order"]["note"]
    assert cut > 0 and note == f"small {cut} requests lost the left end of their context at 30 tokens."


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_length": 16, "tasks": {"order": TASKS["order"]}}, "a continuation has"),
        ({"mixtures": []}, "no mixture in the recipe"),
        ({"model": "other"}, "exactly one model 'other'"),
        ({"portable_cpu": True}, "torch is already imported"),
    ],
)
def test_bad_jobs_end_with_one_message(
    inputs: dict[str, Path], tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(StageError, match=said):
        run(inputs, tmp_path / "bad", **changes)


PROGRAM = """
import sys
from pathlib import Path
from scripts.artifact.stage import Job
from scripts.benchmark.build import build
from scripts.recipe.benchmark import BenchmarkSpec
spec, out, *inputs = sys.argv[1:]
folders = {name: Path(path) for name, path in (pair.split("=") for pair in inputs)}
build(Job(BenchmarkSpec.model_validate_json(spec), folders, Path(out), Path(out), 1))
"""


@pytest.mark.slow
def test_portable_bytes_do_not_depend_on_threads_or_hash_seed(inputs: dict[str, Path], tmp_path: Path) -> None:
    spec = BenchmarkSpec(
        model="tiny",
        suite="mini",
        tasks=TASKS,
        mixtures=["one", "two"],
        device="cpu",
        dtype="float32",
        portable_cpu=True,
    )
    found = []
    for number, threads in enumerate(("1", "2")):
        out = tmp_path / threads
        out.mkdir()
        env = {**os.environ, "OMP_NUM_THREADS": threads, "PYTHONHASHSEED": str(number), "PYTHONPATH": str(ROOT)}
        given = [f"{name}={path}" for name, path in inputs.items()]
        subprocess.run([sys.executable, "-c", PROGRAM, spec.model_dump_json(), str(out), *given], env=env, check=True)
        found.append([(out / name).read_bytes() for name in ("results.json", "samples.parquet")])
    assert found[0] == found[1]
