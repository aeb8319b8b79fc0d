"""What was written once verifies forever: one set of files for each version of the formats, never made again."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.artifact.digest import RECORD, ArtifactError, value_of
from scripts.artifact.lineage import lineage
from scripts.artifact.lock import HEADER, entries_of, format_lock, parse_lock, read_lock
from scripts.artifact.record import FORMAT, key_of, read_record
from scripts.artifact.store import KEY_FIELDS, LAYOUT, Store
from scripts.artifact.verify import begin, check_artifact, read_all
from tests.conftest import ROOT

FORMATS = ROOT / "tests" / "formats"
VERSIONS = sorted(path.name for path in FORMATS.iterdir())
VALUES = {
    "1": {
        "clean/kept": "c054bd96a5bce3c4659c97f5c419b419e8799895301c94f7dc8f75a811ef3a08",
        "clean/older": "c542ecfa5e23acccadeb4188670608c3b6e16f3c0adc2911d49c936e84197ac9",
        "release/kept": "3d82f942aa32a88b285d98c2a288dc8cc47b456c8a9628d93a212dab017017e8",
    }
}


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of one version's files (verification remembers digests beside them)."""
    shutil.copytree(FORMATS / request.param, tmp_path / request.param)
    return tmp_path / request.param


def test_the_formats_of_today_have_files() -> None:
    """A new version must leave files here before it is used."""
    assert VERSIONS[-1] == str(FORMAT)
    assert read_lock(FORMATS / VERSIONS[-1] / "old.lock")
    assert (FORMATS / VERSIONS[-1] / "old.lock").read_text().startswith(HEADER)
    assert f"objects-{FORMAT}" == LAYOUT


def test_artifacts_verify_with_every_byte_and_tensor(version: Path) -> None:
    for name, value in VALUES[version.name].items():
        folder = version / "old" / name
        assert check_artifact(folder, deep=True) == []
        (check,) = read_all([begin(folder, tensors=True)])
        assert check.faults == []
        assert value_of(folder) == value
        record = read_record(folder / RECORD)
        assert key_of({field: record[field] for field in KEY_FIELDS}) == record["key"]


def test_sha256sum_alone_verifies_them(version: Path) -> None:
    for name in VALUES[version.name]:
        command = ["sha256sum", "--strict", "-c", "SHA256SUMS"]
        done = subprocess.run(command, cwd=version / "old" / name, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_locks_are_read_and_written_as_they_were(version: Path) -> None:
    entries = entries_of(version / "old")
    assert read_lock(version / "old.lock") == entries
    if version.name == str(FORMAT):
        assert format_lock(entries) == (version / "old.lock").read_text()


def test_entries_of_a_store_are_served(version: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for name in VALUES[version.name]:
        record = read_record(version / "old" / name / RECORD)
        place = tmp_path / "store" / f"objects-{version.name}" / record["key"][:2] / record["key"]
        shutil.copytree(version / "old" / name, place)
        draft = tmp_path / name.replace("/", "-")
        draft.mkdir()
        assert store.fetch({field: record[field] for field in KEY_FIELDS}, draft) == record


def test_signatures_and_lineages_hold(version: Path) -> None:
    release = version / "old" / "release" / "kept"
    command = ["-m", "model_signing", "verify", "key", "--signature", f"{release}.sig", "--public_key"]
    done = subprocess.run(
        [sys.executable, *command, version / "public.pem", release], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [origin.found for origin in lineage(release)] == ["same", "same", "same"]


def test_a_later_format_is_refused_by_its_name() -> None:
    with pytest.raises(ArtifactError, match="not a lock of format 1; its first line is '# atelier lock 2"):
        parse_lock("# atelier lock 2: other, fields\n", "x.lock")


def test_a_lock_of_format_10_is_not_one_of_format_1() -> None:
    with pytest.raises(ArtifactError, match="not a lock of format 1"):
        parse_lock("# atelier lock 10: other, fields\n", "x.lock")
