"""`snakemake blind-test` on the tiny recipe: what only testers need is built on demand, and only then."""

import json

from scripts.artifact.digest import read_sums, sha256_file
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


CHECKPOINT = """
models: {sapling: {train: {cadence: {keep_checkpoints: [2]}}}}
"""


def test_a_kept_checkpoint_is_a_candidate(bench: Bench) -> None:
    """Beside its base and what it became; the page, the votes and the release work as with models."""
    (bench.folder / "blind.yaml").write_text(RECIPE.replace("seedling, grafted", "seedling, sapling@2, sapling"))
    bench.overlays = ("blind.yaml",)
    refused = bench.run("blind-test")
    assert refused.code != 0
    assert "blind_test.models[1]: checkpoint 'sapling@2': is not kept; models.sapling.train.cadence." in refused.output
    (bench.folder / "blind.yaml").write_text((bench.folder / "blind.yaml").read_text() + CHECKPOINT)
    folder, trained = bench.folder / "results/tiny", bench.folder / "results/tiny/train/sapling"
    weights = sha256_file(trained / "model.safetensors")
    run = bench.run("blind-test")
    assert run.code == 0, run.output + logs(bench)
    made = [f"benchmark {name} on talk" for name in ("sapling", "sapling@2", "seedling")]
    assert sorted(run.jobs) == [*made, "blind test of tiny", "train sapling"]
    assert sha256_file(trained / "model.safetensors") == weights
    kept = sha256_file(trained / "checkpoints/step-00000002/model.safetensors")
    assert kept == read_sums(trained)["checkpoints/step-00000002/model.safetensors"] != weights
    results = json.loads((folder / "benchmark/sapling@2/talk/results.json").read_text())
    assert results["model"] == "sapling@2"
    key = json.loads((folder / "blind/key.json").read_text())
    seen = {row[side] for row in key["comparisons"].values() for side in ("left", "right")}
    assert seen == {"seedling", "sapling@2", "sapling"}
    page = (folder / "blind/for-testers/index.html").read_text()
    assert "sapling" not in page and "checkpoint" not in page
    votes = {name: {"choice": "left", "comment": ""} for name in key["comparisons"]}
    (bench.folder / "votes.json").write_text(json.dumps({"test": key["test"], "tester": "A", "votes": votes}))
    done = bench.python("-m", "scripts.blind", "score", "votes.json", "--json")
    assert done.returncode == 0, done.stderr
    assert {row["candidate"] for row in json.loads(done.stdout)["ratings"]} == {"seedling", "sapling@2", "sapling"}
    # A release holds the model alone.
    released = bench.run("results/tiny/release/sapling/SHA256SUMS")
    assert released.code == 0, released.output + logs(bench)
    assert not [name for name in read_sums(folder / "release/sapling") if name.startswith("checkpoints")]
    assert sha256_file(folder / "release/sapling/model.safetensors") == weights
    for command in (("verify", "--tensors", "results/tiny"), ("lock", "results/tiny", "locks")):
        done = bench.python("-m", "scripts.artifact", *command)
        assert done.returncode == 0, done.stdout + done.stderr
    done = bench.python("-m", "scripts.artifact", "compare", "results/tiny", "locks/tiny.lock")
    assert done.returncode == 0, done.stdout + done.stderr
