"""Benchmarks in shards, through Snakemake: the same bytes as one job, and a killed shard runs again alone."""

import shutil

from tests.pipeline.bench import Bench

SHARDED = "benchmark: {shards: 3}\n"


def test_a_killed_shard_runs_again_alone_and_gives_the_bytes_of_one_job(bench: Bench) -> None:
    one = bench.sums()["tiny/benchmark/grafted/quick"]
    (bench.folder / "sharded.yaml").write_text(SHARDED)
    bench.overlays = ("sharded.yaml",)
    target = "results/tiny/benchmark/grafted/quick/SHA256SUMS"
    # The second shard is killed while it works; its neighbours' results stay.
    first = bench.run("results/tiny/benchmark/grafted/quick.1of3/SHA256SUMS")
    assert first.jobs == ["benchmark grafted on quick.1of3"], first.output
    bench.run_and_kill("results/tiny/benchmark/grafted/.quick.2of3.tmp.*", 300, f"{target}")
    _unlock(bench)
    run = bench.run(target, "--rerun-incomplete")
    assert run.code == 0, run.output
    assert "benchmark grafted on quick.1of3" not in run.jobs, "a finished shard is not done again"
    assert "benchmark grafted on quick.2of3" in run.jobs
    assert bench.sums()["tiny/benchmark/grafted/quick"] == one
    # A lost shard alone, and what is joined from it.
    shutil.rmtree(bench.folder / "results/tiny/benchmark/grafted/quick.2of3")
    run = bench.run(target)
    assert run.jobs == ["benchmark grafted on quick.2of3"], run.output
    assert bench.sums()["tiny/benchmark/grafted/quick"] == one


def _unlock(bench: Bench) -> None:
    assert bench.run("--unlock").code == 0
