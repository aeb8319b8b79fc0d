"""The terminal's scorecard: verification, comparison with the lock, one screen, plain text."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.artifact.lock import entries_of, format_lock
from scripts.recipe.report import ReportSpec
from scripts.report.facts import scorecard
from scripts.report.payloads import read_payloads
from scripts.report.terminal import MAX_COLUMNS, MAX_LINES, _task_names, main
from tests.unit.report_fixtures import Tree, clean, finish, make_job, mix, whole_spec, whole_tree


def results_of(root: Path, tree: Tree | None = None, spec: ReportSpec | None = None) -> Path:
    """Write a recipe's results with the report's figures; the page itself plays no part in the terminal."""
    job = make_job(root, tree, spec)
    folder = root / "results" / "report"
    folder.mkdir()
    facts = scorecard(job.spec, read_payloads(job))
    (folder / "scorecard.json").write_text(json.dumps(facts), encoding="utf-8")
    (folder / "index.html").write_text("page", encoding="utf-8")
    finish(folder, "report")
    return root / "results"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results that tests only read."""
    return results_of(tmp_path_factory.mktemp("made"))


@pytest.fixture
def results(made: Path, tmp_path: Path) -> Path:
    """Results of one's own."""
    return Path(shutil.copytree(made, tmp_path / "results"))


def shown(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Run the command; return exit code, output and errors."""
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert all(len(line) <= MAX_COLUMNS for line in out.splitlines() if not line.startswith(("lock", "report")))
    assert len(out.splitlines()) <= MAX_LINES
    return code, out, err


def test_sound_results(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = shown(capsys, results)
    assert (code, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0] == "Evening tales (recipe evening, seed 7)"
    assert "artifacts 18 built, 18 verified, 0 with faults" in lines
    assert "evening: tales 1,100 1,000 50 47.6 45.0" in lines
    assert "tales-model base 96 760,000 7.1000 2.3952 2.3524" in lines
    assert "mlp.down_proj 4 0.6909 0.2000" in lines
    assert "true-turn acc 0.5000 0.4667~ 0.4833~ 0.5000~ 0.5167~" in lines
    assert "all 3.4000 3.0000 2.6000 2.2000" in lines
    assert "jobs 3 1 2 2 1 8 1 18" in lines
    assert "seconds 7.5 2.5 5.0 5.0 2.5 20.0 2.5 45.0" in lines


def test_damage_is_named_and_fails(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = results / "train" / "tales-model" / "train.json"
    path.write_bytes(path.read_bytes().replace(b"96", b"97"))
    code, out, err = shown(capsys, results)
    assert code == 1
    assert "18 built, 17 verified, 1 with faults" in out
    assert f"{path}: has SHA-256" in err


@pytest.mark.parametrize("content", [b"{}", b"not JSON", b"\xff"])
def test_damage_of_the_figures_themselves(results: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    path = results / "report" / "scorecard.json"
    path.write_bytes(content)
    code, out, err = shown(capsys, results)
    assert (code, out) == (1, "")
    assert f"{path}: has SHA-256" in err


def test_nothing_built_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = shown(capsys, tmp_path)
    assert (code, out) == (2, "")
    assert "build the report first" in err


def test_lock(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = tmp_path / "evening.lock"
    text = format_lock(entries_of(results))
    lock.write_text(text)
    assert f"18 of 18 artifacts equal {lock}" in shown(capsys, results, "--lock", lock)[1]
    entry = next(e for e in entries_of(results) if e.stage == "merge")
    lock.write_text(text.replace(entry.value, "d" * 64) + f"merge\tother\t{'1' * 64}\t{'2' * 64}\t3\n")
    out = shown(capsys, results, "--lock", lock)[1]
    assert f"17 of 18 artifacts equal {lock}" in out
    assert "1 differ, the first: merge/blend" in out
    assert "1 of the lock not built, the first: merge/other" in out


def test_lock_that_was_asked_for_must_exist(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = shown(capsys, results, "--lock", "absent.lock")
    assert code == 1
    assert "absent.lock: no such lock" in err


def test_own_lock_is_found_where_the_lock_command_writes_it(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "none yet (locks/evening.lock)" in shown(capsys, results)[1]
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "evening.lock").write_text(format_lock(entries_of(results)))
    assert "18 of 18 artifacts equal locks/evening.lock" in shown(capsys, results)[1]


def test_large_recipe_still_fits_one_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = whole_tree()
    names = tuple(f"a-source-with-a-long-name-{i}" for i in range(40))
    tree["mix/evening"] = mix("evening", names)
    result = json.loads(tree["benchmark/base/choices"]["results.json"])
    task = result["tasks"]["next-line"]
    result["tasks"] = {f"a_task_with_quite_a_long_name_{i}": task for i in range(60)}
    for i in range(9):
        model = f"a-model-with-a-long-name-{i}"
        tree[f"benchmark/{model}/choices"] = {"results.json": json.dumps({**result, "model": model})}
    code, out, _ = shown(capsys, results_of(tmp_path, tree))
    assert code == 0
    assert "more rows in the report" in out
    assert "more models in the report" in out
    assert "seconds" in out
    assert len(out.splitlines()) > MAX_LINES - 5


def test_tasks_of_like_names_keep_a_row_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = {name: files for name, files in whole_tree().items() if name.startswith("benchmark/base")}
    result = json.loads(tree["benchmark/base/choices"]["results.json"])
    task = result["tasks"]["next-line"]
    numbers = ("five", "seven", "three")
    result["tasks"] = {f"bigbench_tracking_shuffled_objects_{n}_objects": task for n in numbers} | {"arc": task}
    tree["benchmark/base/choices"] = {"results.json": json.dumps(result)}
    other = {**result, "suite": "zero-shot", "tasks": {"arc": task}}
    tree["benchmark/base/zero-shot"] = {"results.json": json.dumps(other)}
    lines = [" ".join(line.split()) for line in shown(capsys, results_of(tmp_path, tree))[1].splitlines()]
    names = ("bigbench..s_five_objects", "bigbench.._seven_objects", "bigbench.._three_objects")
    for name in (*names, "choices: arc", "zero-shot: arc"):
        assert sum(line.startswith(f"{name} acc") for line in lines) == 1, name


def test_names_grow_until_they_differ() -> None:
    names = _task_names([("s", f"a_very_long_beginning_{middle}_and_a_very_long_end") for middle in ("one", "two")])
    assert len(set(names.values())) == 2 and all(len(name) > 24 for name in names.values())


def test_recipe_with_nothing_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = {name: files for name, files in whole_tree().items() if name.startswith("clean/")}
    code, out, _ = shown(capsys, results_of(tmp_path, tree))
    assert code == 0
    assert "benchmarks" not in out
    assert "jobs" in out


def test_escape_sequences_of_a_title_do_not_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = shown(
        capsys, results_of(tmp_path, {"clean/tales": clean("tales")}, whole_spec(title="\x1b[31mred\x07"))
    )
    assert code == 0
    assert out.startswith("?[31mred? (recipe evening")


def test_command_in_a_pipe_without_unicode(results: Path, root: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "scripts.report", "scorecard", str(results)]
    done = subprocess.run(command, env=environment, cwd=results, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\x1b" not in done.stdout
    assert b"18 verified" in done.stdout


def test_terminal_needs_no_plotting_library(root: Path) -> None:
    program = (
        "import sys, scripts.report.terminal; sys.exit(bool({'altair', 'vl_convert', 'jinja2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=root, timeout=60).returncode == 0
