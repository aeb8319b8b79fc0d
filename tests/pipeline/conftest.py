"""One finished run of the tiny recipe a test session; tests work on copies of it."""

import os
import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from tests.faults.shim import Shim
from tests.pipeline.bench import Bench


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A finished run of tests/recipes/tiny.yaml. Copy it before changing anything."""
    own = tmp_path_factory.getbasetemp()
    shared = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "built"
    done = shared / "done"
    with FileLock(f"{shared}.lock"):  # the workers of pytest-xdist share one build
        if not done.exists():
            bench = Bench.fresh(shared / "atelier")
            # Counts the writes of each stage, from which tests/faults draws its points; costs nothing.
            counting = Shim(shared, bench.folder).environment() if shutil.which("gcc") else {}
            run = bench.run(**counting)
            assert run.code == 0, run.output + logs(bench)
            done.touch()
    return Bench(shared / "atelier")


@pytest.fixture
def bench(built: Bench, tmp_path: Path) -> Bench:
    """A copy of the finished run, to change."""
    return built.copy(tmp_path / "copy")


def logs(bench: Bench) -> str:
    """Return the ends of all logs of a run."""
    return "\n".join(f"== {p}\n{p.read_text()[-2000:]}" for p in sorted(bench.folder.rglob("results/*/logs/**/*.log")))
