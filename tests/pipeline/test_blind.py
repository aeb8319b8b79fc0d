"""`snakemake blind-test` on the tiny recipe: what only testers need is built on demand, and only then."""

import json

from tests.pipeline.bench import Bench
from tests.pipeline.conftest import logs

RECIPE = """
suites:
  talk:
    title: A few replies
    tasks:
      replies: {format: generation, limit: 3, turns: 2, max_new_tokens: 6}
blind_test: {models: [seedling, grafted], suite: talk, comparisons: 3}
"""


def test_the_page_is_built_on_demand_and_scored(bench: Bench) -> None:
    refused = bench.run("blind-test")
    assert refused.code != 0 and "recipe tiny asks for no blind test; add to it: blind_test:" in refused.output
    (bench.folder / "blind.yaml").write_text(RECIPE)
    bench.overlays = ("blind.yaml",)
    before = bench.sums()
    assert bench.run("-n").nothing or "Nothing to be done" in bench.run("-n").output
    run = bench.run("blind-test")
    assert run.code == 0, run.output + logs(bench)
    assert sorted(run.jobs) == ["benchmark grafted on talk", "benchmark seedling on talk", "blind test of tiny"]
    assert {name: text for name, text in bench.sums().items() if name in before} == before
    again = bench.run("blind-test")
    assert again.nothing
    done = bench.python("-m", "scripts.artifact", "verify", "results/tiny")
    assert done.returncode == 0, done.stdout
    folder = bench.folder / "results/tiny/blind"
    page, key = (folder / "for-testers/index.html").read_text(), json.loads((folder / "key.json").read_text())
    assert "seedling" not in page and "grafted" not in page
    votes = {name: {"choice": "left", "comment": ""} for name in key["comparisons"]}
    (bench.folder / "votes.json").write_text(json.dumps({"test": key["test"], "tester": "A", "votes": votes}))
    done = bench.python("-m", "scripts.blind", "score", "votes.json")
    assert done.returncode == 0, done.stderr
    assert "grafted" in done.stdout and "blind test of tiny: " in done.stdout
