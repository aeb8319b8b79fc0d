"""What a program's start leaves out, and that it is there again afterwards."""

import gc
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.recipe.start import left_out, uncollected


def test_what_is_left_out_is_back_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_here.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with left_out("only_here"), left_out("json"), pytest.raises(ModuleNotFoundError):
        importlib.import_module("only_here")
    assert importlib.import_module("only_here").__name__ == "only_here" and "json" in sys.modules
    with left_out("only_here"):  # loaded already: left alone
        assert importlib.import_module("only_here") is sys.modules.pop("only_here")


def test_garbage_waits_while_libraries_load_and_what_they_made_is_not_looked_at_again() -> None:
    was_on, frozen = gc.isenabled(), gc.get_freeze_count()
    gc.enable()
    try:
        with pytest.raises(ValueError, match="no such library"), uncollected():
            assert not gc.isenabled()
            raise ValueError("no such library")
        assert gc.isenabled() and gc.get_freeze_count() > frozen
        gc.disable()
        with uncollected():
            pass
        assert not gc.isenabled()  # as the caller had it
    finally:
        gc.unfreeze()
        (gc.enable if was_on else gc.disable)()


@pytest.mark.parametrize("alone", [True, False])
def test_pyarrow_writes_without_loading_pandas(tmp_path: Path, alone: bool) -> None:
    program = f"""
import sys
import pyarrow as pa, pyarrow.parquet as pq
from scripts.recipe.start import arrow_alone
if {alone}:
    arrow_alone()
pq.write_table(pa.Table.from_pylist([{{"text": "a"}}, {{"text": None}}]), {str(tmp_path / "rows.parquet")!r})
print("pandas" in sys.modules, pq.read_table({str(tmp_path / "rows.parquet")!r}).to_pylist())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == f"{not alone} [{{'text': 'a'}}, {{'text': None}}]\n"
