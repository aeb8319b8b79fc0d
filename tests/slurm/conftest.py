"""One private Slurm and one undisturbed run a test session."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.pipeline.bench import Bench
from tests.pipeline.conftest import built  # noqa: F401  (a fixture)
from tests.slurm.bench import SlurmBench
from tests.slurm.cluster import PACKAGES, Cluster, left_behind, missing_programs, session_root

OVERLAYS = Path("tests/slurm")
LONG = "tests/slurm/long.yaml"


MEASURED: dict[str, dict[str, float]] = {}
"""Row of docs/clusters.md -> seconds, printed at the end: the tables there are these figures."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test` runs the lean part alone, on one worker (tests/conftest.py), since its tests share one cluster."""
    whole = os.environ.get("ATELIER_SLURM") == "1"
    for item in items:
        if "tests/slurm" in str(item.path):
            item.add_marker(pytest.mark.slow)
            if item.get_closest_marker("matrix") and not whole:
                item.add_marker(
                    pytest.mark.skip(reason="row of the failure matrix, about a minute each: make slurm-test")
                )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured."""
    for row, figures in MEASURED.items():
        shown = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in figures.items())
        terminalreporter.write_line(f"slurm: {row}: {shown}")


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Iterator[dict[str, float]]:
    """Seconds of this test, by name; `whole` is added."""
    figures = MEASURED.setdefault(request.node.name, {})
    begun = time.monotonic()
    yield figures
    figures["whole"] = time.monotonic() - begun


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running private Slurm, stopped at the end with nothing left."""
    if lacking := missing_programs():
        pytest.skip(f"no Slurm on this machine: {', '.join(lacking)} missing (Debian: apt-get install {PACKAGES})")
    for dead in left_behind():
        dead.down()
    one = Cluster(session_root())
    one.up()
    yield one
    assert one.down() == [], "processes outlived their Slurm jobs"


@pytest.fixture(scope="session")
def quiet(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> SlurmBench:
    """A finished, undisturbed run of the whole recipe, its training long enough to be disturbed, under slurm-h100."""
    bench = fresh(tmp_path_factory.mktemp("quiet") / "atelier")
    bench.overlays = (LONG,)
    slurm = SlurmBench(bench, cluster)
    begun = time.monotonic()
    run = slurm.run(timeout=1800)
    assert run.code == 0, slurm.report()
    MEASURED["quiet run of the whole recipe"] = {"whole": time.monotonic() - begun}
    return slurm


def fresh(folder: Path) -> Bench:
    """Return a copy of the checkout with the overlays of these tests."""
    bench = Bench.fresh(folder)
    (bench.folder / OVERLAYS).mkdir(parents=True, exist_ok=True)
    for path in (ROOT / OVERLAYS).glob("*.yaml"):
        shutil.copy2(path, bench.folder / OVERLAYS)
    return bench


@pytest.fixture
def untrained(quiet: SlurmBench, tmp_path: Path) -> SlurmBench:
    """A copy of the quiet run that lacks the training and what is made from it."""
    copy = quiet.bench.copy(tmp_path / "atelier")
    copy.overlays = quiet.bench.overlays
    for stage in ("train", "merge", "benchmark", "report"):
        shutil.rmtree(copy.folder / "results" / "tiny" / stage)
    return SlurmBench(copy, quiet.cluster)
