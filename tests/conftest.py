"""Shared by all tests: where the checkout is, and an environment that hides nothing."""

import os
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
