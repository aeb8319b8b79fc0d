"""Shards give the bytes of one job, and a broken set of shards is refused."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.artifact.stage import Job, StageError
from scripts.benchmark.build import build
from scripts.benchmark.shards import Scores, TaskScores, join_shards, shard_groups, write_shard
from scripts.recipe.benchmark import BenchmarkSpec, Task
from scripts.recipe.graph import Graph
from scripts.recipe.load import load_recipe
from scripts.recipe.resources import job_resources
from tests.conftest import ROOT
from tests.demo_benchmarks import FOLDER
from tests.unit.benchmark_tiny_model import write_mix, write_model

TASKS = {
    "order": Task(format="multiple_choice", file="word_order.jsonl", limit=7),
    "sums": Task(format="multiple_choice", file="arithmetic.jsonl", limit=5, note="small"),
    "text": Task(format="bits_per_byte"),
}
PAYLOAD = ("results.json", "samples.parquet")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("inputs")
    rows = [(f"r{n}", "tales", ["<|user|>Go on.", "<|model|>" + "The boat went on. " * (n + 1)]) for n in range(5)]
    model, mix = write_model(root / "model"), write_mix(root / "mix", rows)
    return {"create/tiny": model, "download/mini": FOLDER, "mix/one": mix}


def run(inputs: dict[str, Path], out: Path, **changes: object) -> Path:
    """Build one job and return its folder."""
    out.mkdir()
    fixed = {"device": "cpu", "dtype": "float32", "batch_size": 2, "mixtures": ["one"], "max_length": 40}
    spec = BenchmarkSpec.model_validate({"model": "tiny", "suite": "mini", "tasks": TASKS, **fixed, **changes})
    build(Job(spec, inputs, out, out / "work", threads=1))
    return out


def test_joined_shards_are_the_bytes_of_one_job(inputs: dict[str, Path], tmp_path: Path) -> None:
    whole = run(inputs, tmp_path / "whole")
    data = {name: path for name, path in inputs.items() if name != "create/tiny"}
    # The last shard first, and the first one twice: a killed job is run again alone.
    order = (2, 0, 1)
    parts = {k: run(inputs, tmp_path / f"part{k}", shards=3, shard=k) for k in order}
    again = run(inputs, tmp_path / "again", shards=3, shard=0)
    assert [(again / n).read_bytes() for n in ("shard.json", "samples.parquet")] == [
        (parts[0] / n).read_bytes() for n in ("shard.json", "samples.parquet")
    ]
    joined = {**data, **{f"benchmark/tiny/mini.{k + 1}of3": parts[k] for k in range(3)}}
    combined = run(joined, tmp_path / "combined", shards=3)
    for name in PAYLOAD:
        assert (combined / name).read_bytes() == (whole / name).read_bytes()
    assert "lost the left end" in (whole / "results.json").read_text()  # cut contexts are counted over all shards


def test_shards_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    prompts = {"a": "0" * 64}

    def shard(name: str, items: range, length: int = 40, digest: str = "0" * 64) -> Path:
        (tmp_path / name).mkdir()
        scores = Scores(length, {"a": TaskScores({i: [-1.0, -2.0] for i in items}, 1)})
        write_shard(tmp_path / name, scores, {"a": digest})
        return tmp_path / name

    first, second = shard("first", range(2)), shard("second", range(2, 5))
    assert join_shards([second, first], {"a": 5}, prompts).tasks["a"].truncated == 2
    for folders, said in [
        ([first], "hold 2 of 5"),
        ([first, second, shard("twice", range(4, 5))], "item 4 was scored by another shard"),
        ([first, shard("length", range(2, 5), length=41)], "needs one max_length"),
        ([first, shard("prompts", range(2, 5), digest="1" * 64)], "other prompts"),
    ]:
        with pytest.raises(StageError, match=said):
            join_shards(folders, {"a": 5}, prompts)


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 50), max_size=12), min_size=1, max_size=4), st.integers(1, 9))
def test_every_group_belongs_to_exactly_one_shard(sizes: list[list[int]], shards: int) -> None:
    tasks = {str(n): found for n, found in enumerate(sizes)}
    groups = {name: [range(i, min(i + 2, len(s))) for i in range(0, len(s), 2)] for name, s in tasks.items()}
    assert shard_groups(groups, tasks, shards, None) == groups
    parts = [shard_groups(groups, tasks, shards, k) for k in range(shards)]
    joined = {name: [group for part in parts for group in part[name]] for name in groups}
    assert joined == groups  # in order: each shard is one run of the suite


def test_shards_share_the_work() -> None:
    groups = {"a": [range(i, i + 1) for i in range(30)], "b": [range(i, i + 1) for i in range(10)]}
    sizes = {"a": [10] * 30, "b": [30] * 10}
    parts = [shard_groups(groups, sizes, 4, k) for k in range(4)]
    work = [sum(sizes[name][g.start] for name, found in part.items() for g in found) for part in parts]
    assert max(work) - min(work) <= 60 and sum(work) == 600


def test_the_graph_joins_shards_and_the_report_reads_the_joined_suite() -> None:
    graph = Graph(load_recipe([ROOT / "config/demo.yaml"], ROOT, {"benchmark": {"shards": 3, "device": "cuda"}}))
    joined = graph.jobs[("benchmark", "tiny-llama/demo")]
    names = [f"tiny-llama/demo.{k}of3" for k in (1, 2, 3)]
    assert [name for stage, name in joined.inputs if stage == "benchmark"] == names
    assert all(stage != "create" for stage, _ in joined.inputs)
    assert ("create", "tiny-llama") in graph.jobs[("benchmark", names[1])].inputs
    assert not [name for stage, name in graph.jobs[("report", "")].inputs if "of3" in name]
    assert job_resources(graph, ("benchmark", names[0]))["gpu"] == 1
    assert job_resources(graph, ("benchmark", "tiny-llama/demo"))["gpu"] == 0
    plain = Graph(load_recipe([ROOT / "config/demo.yaml"], ROOT))
    assert len(plain.of_stage("benchmark")) == len(plain.recipe.benchmark.suites) * len(plain.recipe.benchmark.models)
