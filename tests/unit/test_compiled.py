"""Machine code that is kept for the next process: what must never be run is not, and no failure is more than slow."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PROGRAM = """
import sys
from pathlib import Path
from scripts.recipe.compiled import keep_compiled
from scripts.recipe import words
from scripts.recipe.words import Words
keep_compiled(Path(sys.argv[1]))
print(Words(5).of("The river's, the sea").tolist())
stats = words._split.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


def run(folder: Path) -> tuple[str, str]:
    """Return the hashes of three words, and (functions read, functions compiled)."""
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    return first, second


def test_the_next_process_reads_and_what_is_damaged_is_compiled_again(tmp_path: Path) -> None:
    folder = tmp_path / "compiled"
    cold, said = run(folder)
    assert said == "0 1" and folder.stat().st_mode & 0o077 == 0
    assert run(folder) == (cold, "1 0")
    (code,) = folder.glob("*/*/words._split-*.nbc")
    raw = code.read_bytes()
    for damaged in (raw[: len(raw) // 2], raw[:-40] + b"\0" * 8 + raw[-32:]):
        code.write_bytes(damaged)
        assert run(folder) == (cold, "0 1")
        assert code.read_bytes() != damaged, "written anew"
    (index,) = folder.glob("*/*/words._split-*.nbi")
    index.write_bytes(index.read_bytes()[:20])
    assert run(folder) == (cold, "0 1")


@pytest.mark.parametrize("kind", ["file", "open to others"])
def test_a_folder_that_is_none_or_others_may_write_to_is_left_alone(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "compiled"
    if kind == "file":
        folder.write_text("x")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    assert run(folder)[1] in ("0 0", "0 1")
    assert folder.is_file() or not list(folder.iterdir())


LATE = """
import sys
from pathlib import Path
from scripts.recipe import minhash
from scripts.recipe.compiled import keep_compiled
keep_compiled(Path(sys.argv[1]))
from scripts.recipe import words
print(words.Words(5).of("The river's, the sea").tolist())
stats = words._split.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


def test_a_module_loaded_afterwards_is_kept_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "compiled"
    cold, said = run(folder)
    monkeypatch.setitem(globals(), "PROGRAM", LATE)
    assert (said, run(folder), run(folder)) == ("0 1", (cold, "0 1"), (cold, "1 0"))
    assert len(list(folder.iterdir())) == 2, "more files compile, another state"


def test_a_tokenizer_loads_no_compiler_until_there_is_enough_to_do() -> None:
    program = "import sys; import scripts.recipe.tokenizer_files; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
