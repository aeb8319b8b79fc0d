"""A fresh clone beside a filled store: every job finds its artifact, none works."""

from pathlib import Path

from scripts.artifact.places import artifact_folders
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
