"""One private Slurm and one undisturbed run a test session."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.pipeline.bench import Bench
from tests.pipeline.conftest import built  # noqa: F401  (a fixture)
from tests.slurm.bench import SlurmBench
from tests.slurm.cluster import PACKAGES, Cluster, default_root, missing_programs

LONG = "tests/slurm/long.yaml"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep all of these tests on one worker: they share one cluster."""
    for item in items:
        if "tests/slurm" in str(item.path):
            item.add_marker(pytest.mark.xdist_group("slurm"))
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running private Slurm, stopped at the end with nothing left."""
    if os.environ.get("ATELIER_SLURM") != "1":
        pytest.skip("these tests start a Slurm and take long: make slurm-test")
    if lacking := missing_programs():
        pytest.skip(f"no Slurm on this machine: {', '.join(lacking)} missing (Debian: apt-get install {PACKAGES})")
    one = Cluster(default_root())
    if one.conf.exists():
        one.down()
    one.up()
    yield one
    assert one.down() == [], "processes outlived their Slurm jobs"


@pytest.fixture(scope="session")
def quiet(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> SlurmBench:
    """A finished, undisturbed run of the long recipe under slurm-h100."""
    bench = fresh(tmp_path_factory.mktemp("quiet") / "atelier")
    bench.overlays = (LONG,)
    slurm = SlurmBench(bench, cluster)
    run = slurm.run("train", timeout=400)
    assert run.code == 0, slurm.report()
    return slurm


def fresh(folder: Path) -> Bench:
    """Return a copy of the checkout with the overlay of these tests."""
    bench = Bench.fresh(folder)
    (bench.folder / LONG).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(ROOT / LONG, bench.folder / LONG)
    return bench


@pytest.fixture
def untrained(quiet: SlurmBench, tmp_path: Path) -> SlurmBench:
    """A copy of the quiet run that lacks only the training."""
    copy = quiet.bench.copy(tmp_path / "atelier")
    copy.overlays = quiet.bench.overlays
    shutil.rmtree(copy.folder / "results" / "tiny" / "train")
    return SlurmBench(copy, quiet.cluster)
