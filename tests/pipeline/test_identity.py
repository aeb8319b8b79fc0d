"""The same bytes everywhere, after every accident, and every flipped byte found."""

import random
from pathlib import Path

import pytest

from tests.pipeline.bench import Bench, kill_session
from tests.pipeline.conftest import logs

# Each pattern appears while the named work is being done; in order of the flow, so that one directory sees them all.
MOMENTS = {
    "clean": "results/tiny/clean/.demo-pippa.tmp.*",
    # The payload is complete, records and publication follow; test_artifact.py kills at many moments inside publish.
    "publish": "results/tiny/mix/.chats.tmp.*/mix.json",
    "train, just launched": "results/tiny/train/.sapling.tmp.*",
    "train, after a checkpoint": "results/tiny/.work/train/*/checkpoints/step-*",
    "merge": "results/tiny/merge/.grafted.tmp.*",
}


@pytest.mark.slow
def test_two_builds_in_different_places_are_identical(built: Bench, tmp_path: Path) -> None:
    other = Bench.fresh(tmp_path / "a folder with spaces, ünïcode 'and quotes'")
    run = other.run(
        cores=1,
        PYTHONHASHSEED="12345",
        TZ="Pacific/Kiritimati",
        LC_ALL="C",
        LANG="tr_TR.UTF-8",
        umask=0o077,
    )
    assert run.code == 0, run.output + logs(other)
    ours, theirs = built.sums(), other.sums()
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []


@pytest.mark.slow
def test_kill_9_then_one_command_gives_the_same_digests(built: Bench, tmp_path: Path) -> None:
    bench = Bench.fresh(tmp_path / "killed")
    for moment, pattern in MOMENTS.items():
        bench.run_and_kill(pattern, 300, "--rerun-incomplete")
        guard = bench.python("-m", "scripts.artifact", "guard", ".")
        assert guard.returncode == 0, f"{moment}: {guard.stderr}"
        assert "Traceback" not in bench.run("--unlock").output
    run = bench.run("--rerun-incomplete")
    assert run.code == 0, run.output + logs(bench)
    assert bench.sums() == built.sums()
    assert not list(bench.folder.glob("results/**/.*.tmp.*"))
    assert bench.run().nothing


def test_the_guard_names_living_jobs(bench: Bench) -> None:
    import subprocess
    import sys

    sleeper = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)", "-m scripts.train"],
        cwd=bench.folder,
        start_new_session=True,
    )
    try:
        guard = bench.python("-m", "scripts.artifact", "guard", ".")
        assert guard.returncode == 1
        assert f"kill {sleeper.pid}" in guard.stderr
    finally:
        kill_session(sleeper.pid)
        sleeper.wait()
    assert bench.python("-m", "scripts.artifact", "guard", ".").returncode == 0


def test_every_flipped_byte_is_named(bench: Bench) -> None:
    """One bit in every file of every artifact, one after another (at a place drawn with a fixed seed)."""
    draw = random.Random(20230902)
    root = bench.folder / "results" / "tiny"
    # report.html lies beside the artifacts and is none: times and machine stand in it.
    for path in sorted(p for p in root.rglob("*/*") if p.is_file() and not {".work", "logs"} & set(p.parts)):
        content = path.read_bytes()
        if not content:
            continue
        at = draw.randrange(len(content))
        flipped = bytearray(content)
        flipped[at] ^= 1 << draw.randrange(8)
        path.chmod(0o644)
        path.write_bytes(bytes(flipped))
        from scripts.artifact.verify import check_artifact

        folder = next(p for p in path.parents if (p / "artifact.json").exists())
        faults = check_artifact(folder, deep=True)
        assert faults, f"{path}: bit flip at {at} not found"
        assert any(path.name in str(fault) for fault in faults), f"{path} is not named in {faults}"
        path.write_bytes(content)
    done = bench.python("-m", "scripts.artifact", "verify", "results/tiny")
    assert done.returncode == 0, done.stdout
