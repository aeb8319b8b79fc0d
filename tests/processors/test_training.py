"""Training gives the same bits on every x86-64 processor with AVX2: the pins, operation by operation and as a whole."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.recipe.hardware import PORTABLE_ENV
from tests.conftest import ROOT
from tests.processors.emulate import PROCESSORS, emulated_python, needs_qemu
from tests.unit.train_fixtures import make_base, make_pack

GOLDEN = Path(__file__).with_name("golden.json")


def probe(python: Path | str, folder: Path, pins: dict[str, str]) -> dict[str, str]:
    """Return the digests that `tests.processors.probe` prints, run by an interpreter under the given pins."""
    folder.mkdir(parents=True)
    kept = {k: v for k, v in os.environ.items() if k not in PORTABLE_ENV}
    done = subprocess.run(
        [python, "-m", "tests.processors.probe", str(folder)],
        cwd=ROOT,
        env={**kept, **pins, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def differing(found: dict[str, str], wanted: dict[str, str]) -> list[str]:
    """Return the names of operations whose bits differ."""
    assert found.keys() == wanted.keys()
    return [name for name in wanted if found[name] != wanted[name]]


@pytest.fixture(scope="module")
def golden() -> dict[str, str]:
    """Digests that were the same natively (Intel Xeon with AVX-512) and emulated as Haswell and as EPYC."""
    return dict(json.loads(GOLDEN.read_text()))


def has_avx2() -> bool:
    """Whether this is a processor that the promise is about."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and " avx2 " in f" {cpuinfo.read_text()} "


@pytest.mark.skipif(not has_avx2(), reason="no x86-64 processor with AVX2: nothing is promised here")
def test_this_processor_gives_the_golden_bits(tmp_path: Path, golden: dict[str, str]) -> None:
    assert differing(probe(sys.executable, tmp_path / "here", PORTABLE_ENV), golden) == []


@needs_qemu()
@pytest.mark.skipif(not os.environ.get("ATELIER_PROCESSORS"), reason="emulation takes minutes: make processors")
@pytest.mark.parametrize("processor", PROCESSORS)
def test_other_processors_give_the_golden_bits(tmp_path: Path, golden: dict[str, str], processor: str) -> None:
    python = emulated_python(tmp_path / processor, processor)
    assert differing(probe(python, tmp_path / "there", PORTABLE_ENV), golden) == []


def test_the_inputs_of_the_probe_are_fixed(tmp_path: Path) -> None:
    """The probe makes its model and rows itself; were they different, the golden digests would not say why."""
    first = [make_base(tmp_path / "a"), make_pack(tmp_path / "b", processes=1, steps=3, accumulation=1)]
    again = [make_base(tmp_path / "c"), make_pack(tmp_path / "d", processes=1, steps=3, accumulation=1)]
    assert [(f / "SHA256SUMS").read_text() for f in first] == [(f / "SHA256SUMS").read_text() for f in again]
