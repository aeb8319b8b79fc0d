"""Shared by all tests: where the checkout is, and an environment that hides nothing."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("ATELIER_REAL_DATA", str(ROOT.parent / "shared" / "data"))
# Tests run programs as `python -m scripts.<stage>` from other folders.
os.environ["PYTHONPATH"] = str(ROOT)


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
