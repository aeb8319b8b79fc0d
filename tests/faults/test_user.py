"""A user who is not root: everything above must hold for the rights that people have."""

import os
import shutil
import subprocess

import pytest

from tests.pipeline.bench import Bench
from tests.pipeline.conftest import logs

_RIGHTS = "-dac_override,-dac_read_search"


def ordinary() -> list[str]:
    """Return what to put before a command so that it may write only what its owner may; nothing for other users."""
    if os.geteuid():
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root without setpriv (util-linux): cannot give up root's rights over files")
    return ["setpriv", f"--bounding-set={_RIGHTS}", f"--inh-caps={_RIGHTS}"]


def run(bench: Bench, *args: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake as an ordinary user."""
    command = [*ordinary(), *bench.command(*args)]
    return subprocess.run(
        command, cwd=bench.folder, env=bench.environment(), capture_output=True, text=True, check=False, timeout=600
    )


def test_a_changed_stage_runs_again_without_roots_rights(bench: Bench) -> None:
    """Snakemake runs no job whose output is write-protected for this user; root never sees that."""
    sums = bench.sums()
    bench.append("scripts/merge/__main__.py", "\nHARMLESS = 1\n")
    done = run(bench, "merge")
    assert done.returncode == 0, done.stdout + done.stderr + logs(bench)
    assert "merge grafted" in done.stderr + done.stdout
    (bench.folder / "results/tiny/merge/grafted/SHA256SUMS").unlink()
    done = run(bench, "merge")  # kept by its key: written by another way
    assert done.returncode == 0, done.stdout + done.stderr + logs(bench)
    bench.append("scripts/merge/__main__.py", "\nHARMLESS = 2\n")
    done = run(bench, "merge")
    assert done.returncode == 0, done.stdout + done.stderr + logs(bench)
    assert bench.sums() == sums


def test_a_folder_without_the_right_to_write_is_one_message(bench: Bench) -> None:
    sums = bench.sums()
    bench.append("scripts/merge/__main__.py", "\nHARMLESS = 1\n")
    folder = bench.folder / "results/tiny/merge"
    folder.chmod(0o555)
    try:
        done = run(bench, "merge")
        log = (bench.folder / "results/tiny/logs/merge/grafted.log").read_text()
        assert done.returncode != 0
        assert "Traceback" not in log
        assert "Permission denied" in log, log
    finally:
        folder.chmod(0o755)
    assert (folder / "grafted/model.safetensors").exists(), "nothing is lost"
    done = run(bench, "merge", "--rerun-incomplete")
    assert done.returncode == 0, done.stdout + done.stderr + logs(bench)
    assert bench.sums() == sums
