"""Shared by all tests: where the checkout is, and an environment that hides nothing."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("ATELIER_REAL_DATA", str(ROOT.parent / "shared" / "data"))
# Tests run programs as `python -m scripts.<stage>` from other folders.
os.environ["PYTHONPATH"] = str(ROOT)


# Tests that share what is costly to start, or of which two at a time would be too much: one worker takes each group.
TOGETHER = (
    "tests/slurm/",
    "tests/security/test_whole_run.py",
    "tests/unit/test_blind_browser.py",
    "tests/unit/test_report_browser.py",
)


class Together(LoadScopeScheduling):  # type: ignore[misc]
    """Gives tests out one by one, and those of a group to one worker.

    pytest-xdist 3.8 has marks for that, which are lost without a word under pytest 9.2: it writes `_nodeid`, and nobody
    reads that any more.
    """

    def _split_scope(self, nodeid: str) -> str:
        return next((group for group in TOGETHER if nodeid.startswith(group)), nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    """Use the groups above, whatever `--dist` says."""
    return Together(config, log)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout under test."""
    return ROOT


@pytest.fixture(autouse=True)
def same_environment() -> Iterator[None]:
    """No test changes the environment of a later one: stages that are called in this process set offline flags."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)
