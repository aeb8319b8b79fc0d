"""Disks that are full, read-only, broken, or count time in whole seconds."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.artifact.digest import FACTS, SUMS
from scripts.artifact.record import read_record
from scripts.artifact.verify import check_artifact
from tests.faults.conftest import SmallDisk
from tests.faults.programs import artifacts, command_of, in_soak, one_of_each_stage, run, told
from tests.faults.shim import Shim, needs_gcc
from tests.pipeline.bench import Bench
from tests.pipeline.conftest import logs


def on_disk(bench: Bench, disk: SmallDisk) -> None:
    """Put the results of a bench on a disk, and leave a link, as people do whose home is small."""
    results = bench.folder / "results"
    shutil.copytree(results, disk.folder / "results", copy_function=shutil.copy2)
    shutil.rmtree(results)
    results.symlink_to(disk.folder / "results")


def lose(folder: Path) -> dict[str, bytes]:
    """Remove an artifact; return its files."""
    content = {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    shutil.rmtree(folder)
    return content


@in_soak
def test_a_full_disk_in_each_stage(bench: Bench, small_disk: SmallDisk) -> None:
    """Half of the artifact's bytes fit: one message, nothing published; with room, the same command gives the same."""
    on_disk(bench, small_disk)
    sums = bench.sums()
    for stage, folder in one_of_each_stage(bench).items():
        command = command_of(folder)
        content = lose(folder)
        small_disk.leave_free(sum(map(len, content.values())) // 2)
        done = run(bench, command)
        assert done.returncode == 1, f"{stage}: {told(done)}"
        assert "No space left" in told(done) or "make room" in told(done), f"{stage}: {told(done)}"
        # A rank whose peer has failed says so at length; the last word is the stage's, in one line.
        assert told(done).splitlines()[-1].startswith(f"{stage}: "), f"{stage}: {told(done)}"
        assert stage == "train" or "Traceback" not in told(done), f"{stage}: {told(done)}"
        small_disk.change("size=1g")
        assert not folder.exists(), f"{stage}: published although the disk was full"
        assert bench.sums() == {k: v for k, v in sums.items() if k != str(folder.relative_to(bench.folder / "results"))}
        done = run(bench, command)
        assert done.returncode == 0, f"{stage}: {told(done)}"
        assert bench.sums() == sums, stage
        assert check_artifact(folder, deep=True) == []
        assert not list(folder.parent.glob(f".{folder.name}.*")), f"{stage}: something was left behind"


@in_soak
def test_read_only_results(bench: Bench, small_disk: SmallDisk) -> None:
    on_disk(bench, small_disk)
    sums = bench.sums()
    folder = bench.folder / "results/tiny/merge/grafted"
    command = command_of(folder)
    bench.edit("scripts/merge/__main__.py", "run_stage(", "HARMLESS = 1\n    run_stage(")
    small_disk.change("ro")
    assert bench.python("-m", "scripts.artifact", "verify", "results/tiny").returncode == 0, "verify writes nothing"
    done = run(bench, command)
    assert done.returncode == 1
    assert told(done).startswith("merge: Read-only file system: ") and len(told(done).splitlines()) == 1, told(done)
    snakemake = bench.run()
    assert snakemake.code != 0
    assert "Read-only file system" in snakemake.output or "Write-protected output files" in snakemake.output
    small_disk.change("rw")
    assert bench.sums() == sums
    again = bench.run("--rerun-incomplete")
    assert again.code == 0, again.output + logs(bench)
    assert again.jobs == ["merge grafted"]
    assert bench.sums() == sums


@needs_gcc()
@pytest.mark.parametrize(
    "stage", ["clean", "merge", *(pytest.param(s, marks=in_soak) for s in ("mix", "pack", "benchmark", "report"))]
)
def test_a_read_error_of_an_input_is_one_message(bench: Bench, tmp_path: Path, stage: str) -> None:
    """The first input's first byte cannot be read: EIO, as a dying disk gives it."""
    folder = one_of_each_stage(bench)[stage]
    argv = read_record(folder / FACTS)["argv"]
    given = next(a for a in argv[argv.index("--inputs") + 1 :])
    payload = next(p for p in sorted((bench.folder / given).parent.iterdir()) if p.name != SUMS and p.suffix != ".json")
    command = command_of(folder)
    shutil.rmtree(bench.folder / "results/tiny/.work", ignore_errors=True)  # no remembered digests: it must be read
    before = bench.sums()
    lose(folder)
    shim = Shim(tmp_path / "shim", payload, kinds="d", at=1, do="eio")
    done = run(bench, command, **shim.environment())
    assert done.returncode == 1
    assert f"{payload}: cannot be read: " in told(done) and "Input/output error" in told(done), told(done)
    assert "Traceback" not in told(done)
    assert not folder.exists()
    done = run(bench, command)
    assert done.returncode == 0, told(done)
    assert bench.sums() == before


@pytest.fixture
def disk_of_whole_seconds(tmp_path: Path) -> Iterator[Path]:
    """An ext2 file system with inodes of 128 bytes, which hold times of whole seconds only."""
    image, folder = tmp_path / "image", tmp_path / "seconds"
    folder.mkdir()
    with image.open("wb") as handle:
        handle.truncate(400 << 20)
    for command in (["mkfs.ext2", "-q", "-I", "128", image], ["mount", "-o", "loop", image, folder]):
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            pytest.skip(f"cannot make a file system: {error}")
        if done.returncode:
            pytest.skip(f"cannot make or mount a file system: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=False)


@in_soak
def test_times_of_whole_seconds(bench: Bench, disk_of_whole_seconds: Path) -> None:
    copied = bench.copy(disk_of_whole_seconds / "atelier")
    assert all(p.stat().st_mtime_ns % 10**9 == 0 for p in artifacts(copied))
    sums = copied.sums()
    assert copied.run().nothing
    copied.append("scripts/clean/__main__.py", "\nHARMLESS = 1\n")
    run_ = copied.run()
    assert run_.code == 0, run_.output
    assert sorted(run_.jobs) == ["clean demo-airoboros", "clean demo-pippa"], "the same bytes stop it there"
    assert copied.sums() == sums
    assert copied.run().nothing
    folder = copied.folder / "results/tiny/merge/grafted"
    path = folder / "config.json"
    path.chmod(0o644)
    content = path.read_bytes()
    found = 0
    for number in range(5):  # a change within the second in which the file was hashed keeps every figure of its stat
        time.sleep(1.05 - time.time() % 1)  # the kernel's coarse clock is up to 10 ms behind
        path.write_bytes(content)
        assert check_artifact(folder) == []
        before = path.stat()
        with path.open("r+b") as handle:
            handle.write(b"[" if number % 2 else b" ")
        assert path.stat().st_mtime_ns == before.st_mtime_ns, "not within one second: the test proves nothing"
        found += bool(check_artifact(folder))
    assert found == 5
