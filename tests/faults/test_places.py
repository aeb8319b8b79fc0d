"""Folders with hostile names, links in circles, a umask that hides everything, and half a checkout."""

import shutil
from pathlib import Path

import pytest

from tests.faults.programs import command_of, in_soak, run, told
from tests.pipeline.bench import Bench
from tests.pipeline.conftest import logs

NAMES = {
    "all at once": '-it\'s "$(touch PWNED)" `touch PWNED`; * ? [a] %s\n# ünïcode 変 \U0001f600',
    "spaces and quotes": "a folder  with 'quotes' and \"more\"",
    "shell words": "$(touch PWNED) `touch PWNED`; touch PWNED #",
    "wildcards": "* ? [a] %s ~ !x",
    "not ASCII": "ünïcode 変 \U0001f600",
    "a line break": "two\nlines",
    "a leading dash": "-rf",
}


@in_soak
@pytest.mark.parametrize("case", NAMES)
def test_a_folder_of_any_name(built: Bench, tmp_path: Path, case: str) -> None:
    bench = built.copy(tmp_path / NAMES[case])
    sums = bench.sums()
    for stage in ("merge", "benchmark"):
        bench.append(f"scripts/{stage}/__main__.py", "\nHARMLESS = 1\n")
    again = bench.run("merge", "benchmark", umask=0o077)
    assert again.code == 0, again.output + logs(bench)
    assert len(again.jobs) == 3
    assert bench.sums() == sums
    assert bench.python("-m", "scripts.artifact", "verify", "results/tiny").returncode == 0
    assert bench.run().nothing
    assert not list(tmp_path.rglob("PWNED")) and not (Path.cwd() / "PWNED").exists()


def test_a_folder_with_braces_is_one_message(built: Bench, tmp_path: Path) -> None:
    """Snakemake 9.27.1 formats the path of `conda:` files, and so the folder's name, with a job's wildcards."""
    done = built.copy(tmp_path / "{name}").run()
    assert done.code != 0 and not done.jobs
    assert "takes braces in a folder's name for wildcards" in done.output and "Traceback" not in done.output


@in_soak
def test_links_in_circles(bench: Bench) -> None:
    """A link to itself and one to the folder above, everywhere but inside a payload, are walked past."""
    root = bench.folder / "results"
    for folder in (root, root / "tiny", root / "tiny/clean", root / "tiny/.work", bench.folder / "config"):
        folder.mkdir(exist_ok=True)
        (folder / "itself").symlink_to("itself")
        (folder / "above").symlink_to("..")
    assert bench.run().nothing
    verified = bench.python("-m", "scripts.artifact", "verify", "results/tiny")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "13 of 13 artifacts verified" in verified.stdout


@in_soak
def test_a_circle_inside_an_artifact_is_named(bench: Bench) -> None:
    folder = bench.folder / "results/tiny/mix/chats"
    (folder / "loop").symlink_to(".")
    verified = bench.python("-m", "scripts.artifact", "verify", "results/tiny")
    assert verified.returncode == 1
    assert "loop: not a regular file" in verified.stdout
    done = run(bench, command_of(bench.folder / "results/tiny/pack/sapling"))
    assert done.returncode == 1 and "loop: not a regular file" in told(done) and "Traceback" not in told(done)
    (folder / "loop").unlink()
    assert bench.run().nothing


def test_a_source_folder_that_is_a_circle_is_one_message(bench: Bench) -> None:
    command = command_of(bench.folder / "results/tiny/download/demo-pippa")
    shutil.rmtree(bench.folder / "results/tiny/download/demo-pippa")
    kept = bench.folder / "config/demo-sources"
    kept.rename(bench.folder / "kept")
    kept.symlink_to("demo-sources")
    done = run(bench, command)
    assert done.returncode == 1 and "Traceback" not in told(done)
    assert "demo-sources" in told(done), told(done)
    kept.unlink()
    (bench.folder / "kept").rename(kept)
    assert run(bench, command).returncode == 0


LOST = {
    "a rule file": "rules/merge.smk",
    "a stage": "scripts/merge",
    "a module": "scripts/merge/ratios.py",
    "a foundation": "scripts/artifact/digest.py",
    "a lock": "envs/train.lock",
    "a source": "config/sources/demo-pippa.yaml",
    "the recipe": "tests/recipes/tiny.yaml",
}


@in_soak
def test_half_a_checkout_is_named_and_loses_nothing(bench: Bench) -> None:
    sums = bench.sums()
    for case, name in LOST.items():
        lost, kept = bench.folder / name, bench.folder / "kept"
        lost.rename(kept)
        done = bench.run()
        assert done.code != 0, case
        word = "demo-pippa" if case == "a source" else "digest" if case == "a foundation" else name
        assert word in done.output, f"{case}: {done.output}"
        assert not done.jobs, case
        kept.rename(lost)
    assert bench.sums() == sums
    assert bench.run().nothing
