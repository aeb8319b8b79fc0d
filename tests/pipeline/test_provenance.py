"""Replay, exports and the store on a finished run of the real rules."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from scripts.artifact.digest import RECORD, SUMS, format_sums, hash_files, payload_files, sha256_file, value_of
from scripts.artifact.places import artifact_folders
from scripts.artifact.record import read_record, write_record
from scripts.artifact.replay import candidates, draw, replay
from scripts.artifact.store import Store
from tests.pipeline.bench import Bench
from tests.pipeline.conftest import logs


def test_a_fresh_clone_takes_all_from_the_store(built: Bench, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    for folder in artifact_folders(built.folder / "results" / "tiny"):
        Store(tmp_path / "store").add(folder)
    clone = Bench.fresh(tmp_path / "clone")
    run = clone.run(ATELIER_STORE=str(tmp_path / "store"))
    assert run.code == 0, run.output + logs(clone)
    assert clone.sums() == built.sums()
    said = {p.relative_to(clone.folder): p.read_text() for p in clone.folder.glob("results/tiny/logs/**/*.log")}
    assert len(said) == len(built.sums())
    assert [name for name, text in said.items() if "restored from key" not in text] == []
    assert clone.run(ATELIER_STORE=str(tmp_path / "store")).nothing


def test_a_stage_rebuilt_alone_stops_there(bench: Bench) -> None:
    """T6c: the stage by itself in one run, everything in the next."""
    bench.append("scripts/mix/__main__.py", "\nHARMLESS = 1\n")
    assert bench.run("mix").jobs == ["mix chats"]
    assert bench.run().nothing


def test_a_replay_gives_the_same_bytes_and_finds_a_lie(bench: Bench) -> None:
    root = bench.folder / "results" / "tiny"
    found = candidates(root, 3600)
    assert [(c.name, c.obstacle) for c in found if c.obstacle] == []
    assert draw(found, 3, 1) == draw(found, 3, 1) and len(draw(found, 3, 1)) == 3
    assert {c.name for seed in range(200) for c in draw(found, 1, seed)} == {c.name for c in found}
    chosen = [c for c in found if c.name in {"clean/demo-airoboros", "mix/chats", "merge/grafted"}]
    folder = root / "mix" / "chats"
    (folder / "mix.json").chmod(0o644)
    (folder / "mix.json").write_text(json.dumps({**json.loads((folder / "mix.json").read_text()), "seed": 8}))
    record = read_record(folder / RECORD)
    for name in (SUMS, RECORD):
        (folder / name).chmod(0o644)
    (folder / SUMS).write_text(format_sums(hash_files(folder, payload_files(folder))))
    write_record(folder / RECORD, {**record, "value": value_of(folder)})
    outcomes = {o.name: o for o in replay(root, chosen)}
    assert outcomes["clean/demo-airoboros"].same and outcomes["merge/grafted"].same, outcomes
    lie = outcomes["mix/chats"]
    assert not lie.same and "NOT the same bytes: mix.json" in lie.text
    kept = Path(lie.text.split("kept in ")[1])
    assert json.loads((kept / "mix.json").read_text())["seed"] == 7
    shutil.rmtree(next(p for p in kept.parents if p.name.startswith("atelier-replay-")))
    assert next(c.obstacle for c in candidates(root, 0.0) if c.name == "clean/demo-airoboros").startswith("took")
    bench.append("scripts/clean/__main__.py", "\nHARMLESS = 4\n")
    done = bench.python("-m", "scripts.artifact", "replay", "results/tiny", "-n", "1", "--seed", "3")
    assert "not drawn: clean/demo-pippa: its code or its packages have changed since" in done.stdout, done.stderr


@pytest.fixture
def crate(bench: Bench) -> Path:
    """A checkout with `ro-crate-metadata.json`."""
    command = ("export", "crate", "results/tiny", "--recipe", bench.recipe, "--output", "ro-crate-metadata.json")
    done = bench.python("-m", "scripts.artifact", *command)
    assert done.returncode == 0, done.stderr
    return bench.folder


def test_the_crate_describes_every_job_and_byte(crate: Path) -> None:
    entities = {e["@id"]: e for e in json.loads((crate / "ro-crate-metadata.json").read_text())["@graph"]}
    hashed = [e for e in entities.values() if "sha256" in e]
    assert len(hashed) > 60
    for entity in hashed:
        assert sha256_file(crate / entity["@id"]) == entity["sha256"]
        assert (crate / entity["@id"]).stat().st_size == entity["contentSize"]
    jobs = {name.removeprefix("#job/") for name in entities if name.startswith("#job/")}
    root = crate / "results" / "tiny"
    assert jobs == {folder.relative_to(root).as_posix() for folder in artifact_folders(root)}
    merge = entities["#job/merge/grafted"]
    assert [i["@id"] for i in merge["object"]] == ["results/tiny/create/seedling/", "results/tiny/train/sapling/"]
    named = [
        v["@id"]
        for e in entities.values()
        for x in e.values()
        for v in (x if isinstance(x, list) else [x])
        if isinstance(v, dict) and "@id" in v
    ]
    assert [i for i in named if i not in entities and not i.startswith("https:")] == [], "no reference into nothing"


def test_runcrate_reads_the_crate(crate: Path) -> None:
    runcrate = os.environ.get("RUNCRATE") or shutil.which("runcrate")
    if runcrate is None:
        pytest.skip("runcrate is not installed: pip install runcrate in an environment of its own, RUNCRATE=its path")
    done = subprocess.run([runcrate, "report", str(crate)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("action: ") == 14, "the run and its 13 jobs"
    assert "instrument: Snakefile" in done.stdout.split("\n\n")[0]
    assert "tests/recipes/tiny.yaml <- #recipe" in done.stdout
