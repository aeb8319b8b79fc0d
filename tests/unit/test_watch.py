"""The live view, against a recorded run: Snakemake 9.27.1 on recorded_recipe.yaml, paths replaced."""

import io
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from scripts.watch import state
from scripts.watch.frame import duration, frame, size, sparkline
from scripts.watch.snakelog import LogReader
from scripts.watch.state import View, Watcher
from scripts.watch.tail import Tail, last_lines
from scripts.watch.training import TrainingReader
from tests.conftest import ROOT

RECORDED = (Path(__file__).parent / "recorded_run.txt").read_text()
NAME = "2026-11-25T222255.443219.snakemake.log"
FAILED = """[Wed Nov 25 22:25:59 2026]
Error in rule train_model:
    message: None
    jobid: 19
    input: results/demo/create/tiny-llama/SHA256SUMS
    output: results/demo/train/tiny-instruct/SHA256SUMS
    log: results/demo/logs/train/tiny-instruct.log (check log file(s) for error details)
"""
ABORTED = """Shutting down, this might take some time.
Exiting because a job execution failed. Look above for error messages
Complete log(s): FOLDER/.snakemake/log/x.snakemake.log
WorkflowError:
At least one job did not complete successfully.
"""


def moment(text: str) -> float:
    """Seconds since 1970 of a stamp of the recording."""
    return time.mktime(time.strptime(text, "%Y-%m-%d %H:%M:%S"))


TRAINING = moment("2026-11-25 22:25:20")


class Fake:
    """A process as psutil shows it."""

    def __init__(self, *cmdline: str) -> None:
        self.info = {"cmdline": list(cmdline)}

    def children(self, recursive: bool) -> list["Fake"]:
        """None."""
        return []

    def memory_info(self) -> Any:
        """768 MiB."""
        return type("Memory", (), {"rss": 768 * 1024**2})


SNAKEMAKE = Fake("python", "-m", "snakemake")
JOB = Fake("python", "-m", "scripts.train", "--output", "results/demo/train/tiny-instruct/SHA256SUMS")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An empty working directory."""
    (tmp_path / ".snakemake" / "log").mkdir(parents=True)
    return tmp_path


def write_log(place: Path, text: str, name: str = NAME, host: str = "") -> Path:
    """Write a log as Snakemake would have on this machine, or on `host`."""
    path = place / ".snakemake" / "log" / name
    path.write_text(text.replace("FOLDER", str(ROOT)).replace("Host: HOST", f"Host: {host or platform.node()}"))
    return path


def until(line: str) -> str:
    """The recording up to a line, included."""
    return RECORDED[: RECORDED.index(line) + len(line)] + "\n"


def training_files(place: Path, steps: int = 20) -> Path:
    """The work folder of tiny-instruct after some steps, and what it is packed to."""
    folder = place / "results/demo/.work/train/abc"
    folder.mkdir(parents=True)
    (folder / "task-1.json").write_text(json.dumps({"spec": {"model": "tiny-instruct"}}))
    pack = place / "results/demo/pack/tiny-instruct"
    pack.mkdir(parents=True)
    (pack / "pack.json").write_text('{"steps": 46}')
    lines = [{"step": 0, "eval_loss": 6.93, "eval_tokens": 5}]
    lines += [{"step": i, "loss": 7.0 - i / 10, "tokens": 2000} for i in range(1, steps + 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    speed = [
        {"step": i, "seconds": 0.5, "tokens_per_s": 4000.0, "peak_rss_bytes": 600_000_000} for i in range(1, steps + 1)
    ]
    (folder / "speed.jsonl").write_text("".join(json.dumps(line) + "\n" for line in speed))
    return folder


def artifact(place: Path, name: str, seconds: float = 8.0) -> None:
    """A finished artifact, as far as the view looks at it."""
    folder = place / "results/demo" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "SHA256SUMS").write_text("")
    (folder / "provenance.json").write_text(json.dumps({"seconds": seconds}))


def look(
    place: Path, monkeypatch: pytest.MonkeyPatch, processes: tuple[Fake, ...] = (SNAKEMAKE,), now: float = TRAINING
) -> tuple[View, str]:
    """One view, and what is printed of it."""
    monkeypatch.setattr(state, "_processes", lambda _: iter(processes))
    view = Watcher(place, []).look(now)
    return view, printed(view)


def printed(view: View, unicode: bool = True, width: int = 100) -> str:
    """The text of a frame."""
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(frame(view, unicode))
    return out.getvalue()


def test_a_training_in_the_middle_of_the_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_log(place, until("Job 19: train tiny-instruct [0 GPUs, 2 threads, 8000 MB, 60 min]"))
    training_files(place)
    for name in ("mix/roleplay", "mix/instruct", "mix/everything", "create/tiny-llama", "benchmark/tiny-llama/demo"):
        artifact(place, name)
    view, text = look(place, monkeypatch, (SNAKEMAKE, JOB))
    assert view.status == "running" and view.steps == (19, 29)
    (job,) = view.jobs
    assert (job.title, job.state, job.memory_bytes) == ("train tiny-instruct", "running", 768 * 1024**2)
    assert job.training is not None
    assert (job.training.step, job.training.steps, job.training.losses[-1]) == (20, 46, 5.0)
    assert job.left_s == pytest.approx(26 * 0.5)
    assert ("mix", 3, 3) in view.stages and ("benchmark", 1, 8) in view.stages and ("report", 0, 1) in view.stages
    assert "release" not in [stage for stage, *_ in view.stages]
    for shown in (
        "Atelier demo", "running", "19 of 29 jobs", "at least", "mix 3/3", "step 20 of 46", "4,000 tokens/s",
        "0.6 GiB peak a process", "0.8 GiB", "13 s left", "loss █", "▁ 5.0000", "evaluation 6.9300 at step 0",
    ):  # fmt: skip
        assert shown in " ".join(text.split()) or shown in text, shown
    plain = printed(view, unicode=False)
    assert plain.isascii() and "loss @" in plain


def test_time_left_is_known_once_each_stage_has_a_finished_job(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_log(place, until("Execute 2 jobs..."))
    view, text = look(place, monkeypatch)
    assert view.at_least and " left" not in text, "nothing was ever built here, so nothing is said"
    artifact(place, "benchmark/tiny-llama/demo", 30.0)
    artifact(place, "report", 5.0)
    view, text = look(place, monkeypatch)
    assert view.at_least, "nothing is known of downloads, mixes and trainings, which lie nowhere"
    for name in ("download/demo", "clean/demo-pippa", "mix/roleplay", "create/tiny-llama", "pack/tiny-roleplay"):
        artifact(place, name, 1.0)
    for name in ("train/tiny-roleplay", "merge/tiny-mythalion"):
        artifact(place, name, 10.0)
    view, text = look(place, monkeypatch)
    assert not view.at_least and "about" in text
    # By the table of jobs, whose artifacts may lie there from an earlier run: 6 downloads, 5 cleans, 3 mixes, 1 model
    # and 2 packs of 1 s, 2 trainings and 1 merge of 10, 8 benchmarks of 30, and the report; none has run yet.
    assert view.steps == (0, 29) and view.left_s == pytest.approx(17 + 30 + 240 + 5)
    write_log(place, until("Job 29: report demo [1 threads, 4000 MB, 60 min]"))
    view, text = look(place, monkeypatch, now=TRAINING)
    assert not view.at_least and view.left_s is not None and view.left_s <= 5, "the report is the last one"


def test_a_training_of_more_steps_than_last_takes_longer(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_log(place, until("Execute 2 jobs..."))
    artifact(place, "train/tiny-roleplay", 10.0)
    (place / "results/demo/train/tiny-roleplay/train.json").write_text('{"steps": 75}')
    before = look(place, monkeypatch)[0].left_s
    (place / "results/demo/pack/tiny-roleplay").mkdir(parents=True)
    (place / "results/demo/pack/tiny-roleplay/pack.json").write_text('{"steps": 225}')
    # Two trainings wait: nothing is known of the other one, so it counts like the first.
    assert (before, look(place, monkeypatch)[0].left_s) == (20.0, 60.0)


def test_a_run_that_was_asked_for_one_file_or_stage_counts_its_jobs_only() -> None:
    table = "Job stats:\njob count\n---- ----\npack_rows  2\npack  1\nrelease_model 1\nblind-test 1\ntotal  5\n"
    path = Path("x")
    reader = LogReader(path)
    reader._take(table.splitlines())
    assert reader.run.work == (0, 3) and reader.run.planned_of("release") == 1 and reader.run.planned_of("train") == 0


def test_every_prefix_of_a_run_can_be_shown(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "_processes", lambda _: iter((SNAKEMAKE,)))
    watcher, path = Watcher(place, []), place / ".snakemake" / "log" / NAME
    whole = RECORDED.replace("FOLDER", str(ROOT)).encode()
    done = []
    with path.open("ab") as handle:
        for first in range(0, len(whole), 97):  # cut in the middle of lines
            handle.write(whole[first : first + 97])
            handle.flush()
            view = watcher.look(TRAINING)
            printed(view)
            done.append(view.steps[0])
    assert done == sorted(done) and done[-1] == 29
    assert view.status == "finished" and view.jobs == []


def test_how_a_run_ended(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    middle = until("Job 19: train tiny-instruct [0 GPUs, 2 threads, 8000 MB, 60 min]")
    write_log(place, RECORDED)
    assert look(place, monkeypatch, ())[0].status == "finished"
    write_log(place, middle)
    view, text = look(place, monkeypatch, ())
    assert view.status == "killed" and "make resume" in text and "unfinished" in text
    assert look(place, monkeypatch, (JOB,))[0].status == "orphans"
    write_log(place, middle + "Terminating processes on user request, this might take some time.\nComplete log(s): x\n")
    assert look(place, monkeypatch, ())[0].status == "stopped"
    write_log(place, RECORDED.split("Using shell")[0] + "Nothing to be done (all requested files are present).\n")
    assert look(place, monkeypatch, ())[0].status == "nothing"
    write_log(place, RECORDED.split("Building DAG")[0] + "WorkflowError:\nseed: found 'seven'\n")
    assert look(place, monkeypatch, ())[0].status == "refused"


def test_a_failed_job_shows_the_end_of_its_log(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    middle = until("Job 19: train tiny-instruct [0 GPUs, 2 threads, 8000 MB, 60 min]")
    write_log(
        place,
        middle
        + FAILED
        + "Trying to restart job 19.\n[Wed Nov 25 22:26:00 2026]\nJob 19: train tiny-instruct [2 threads]\n",
    )
    view, text = look(place, monkeypatch)
    assert [(job.title, job.state, job.attempts) for job in view.jobs] == [("train tiny-instruct", "running", 2)]
    assert "attempt 2" in text
    log = place / "results/demo/logs/train/tiny-instruct.log"
    log.parent.mkdir(parents=True)
    log.write_text("step 1\nstep 2\rstep 3\n\n\x1b[31m[red]train: \x07no room[/red]\x1b[0m\n")
    os.utime(log, (TRAINING, TRAINING + 600))
    write_log(place, middle + FAILED + ABORTED)
    view, text = look(place, monkeypatch, ())
    assert view.status == "failed"
    assert view.jobs[0].said == ["step 1", "step 3", "[31m[red]train: no room[/red][0m"]
    assert "train tiny-instruct failed" in " ".join(text.split()) and "logs/train/tiny-instruct.log" in text
    assert "[red]train: no room[/red]" in text and "\x1b" not in text and "\x07" not in text


def test_on_a_cluster_a_job_is_queued_until_it_writes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = until("Job 19: train tiny-instruct [0 GPUs, 2 threads, 8000 MB, 60 min]")
    text += "Job 19 has been submitted with SLURM jobid 4711 (log: results/slurm-logs/rule_train_model/4711.log).\n"
    path = write_log(place, text, host="login7")
    training_files(place)
    now = path.stat().st_mtime
    view, shown = look(place, monkeypatch, (), now)
    assert (view.status, view.jobs[0].state) == ("elsewhere", "queued")
    assert "running on login7" in shown and "job 4711" in shown and "queued" in shown
    log = place / "results/demo/logs/train/tiny-instruct.log"
    log.parent.mkdir(parents=True)
    log.write_text("train: step 7/46\n")
    view, shown = look(place, monkeypatch, (), now)
    assert view.jobs[0].state == "running" and "step 20 of 46" in shown
    assert look(place, monkeypatch, (), now + 3600)[0].status == "silent"


def test_a_call_that_met_the_lock_hides_no_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_log(place, until("Job 19: train tiny-instruct [0 GPUs, 2 threads, 8000 MB, 60 min]"))
    head = RECORDED.split("Building DAG")[0]
    write_log(place, head + "LockException:\nError: Directory cannot be locked.\n", "2026-11-25T232255.0.snakemake.log")
    assert look(place, monkeypatch)[0].jobs[0].title == "train tiny-instruct"


def test_another_recipe_is_not_mistaken_for_this_one(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_log(place, RECORDED)
    monkeypatch.setattr(state, "_processes", lambda _: iter(()))
    view = Watcher(place, [ROOT / "tests/recipes/tiny.yaml"]).look(TRAINING)
    assert (view.status, view.title) == ("never", "Atelier in miniature")


def test_metrics_that_are_cut_back_and_half_lines(tmp_path: Path) -> None:
    folder = training_files(tmp_path)
    reader = TrainingReader(folder, tmp_path / "results/demo/pack/tiny-instruct")
    assert reader.read().step == 20
    metrics = folder / "metrics.jsonl"
    whole = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join(whole[:11]) + '{"step": 11, "lo')  # back to the checkpoint of step 10, writing on
    state = reader.read()
    assert (state.step, len(state.losses)) == (10, 10)
    with metrics.open("a") as handle:
        handle.write('ss": 5.5}\nnot json\n')
    with (folder / "speed.jsonl").open("a") as handle:
        handle.write('{"step": 11, "seconds": 2.0, "tokens_per_s": 100.0, "peak_gpu_bytes": 9, "mfu": 0.4}\n')
    state = reader.read()
    assert (state.step, state.losses[-1], state.seconds_a_step) == (11, 5.5, 2.0)
    assert state.on_gpu and state.mfu == 0.4 and state.tokens_per_s == 100.0
    metrics.unlink()
    assert reader.read().step == 11, "the training has ended and taken its folder along"


def test_tail_reads_each_byte_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = Tail(path)
    assert tail.lines() == [] and last_lines(path, 3) == []
    path.write_bytes(b"one\ntw\xff")
    assert tail.lines() == ["one"]
    with path.open("ab") as handle:
        handle.write(b"o\nthree\n")
    assert tail.lines() == ["tw\ufffdo", "three"]
    assert tail.lines() == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (18_240, "5 h 04 min"), (183_600, "2 d 3 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_sparkline_and_size() -> None:
    assert sparkline([1, 2, 3, 4, 5, 6, 7, 8], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([8.0] * 100, 10) == "▁" * 10
    assert sparkline([], 10) == "" and sparkline([1.0], 10) == "▁"
    assert len(sparkline(list(range(1000)), 40)) == 40
    assert size(2 * 1024**3) == "2.0 GiB" and size(50 * 1024**2) == "50 MiB"


def run(place: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the program without a terminal."""
    command = [sys.executable, "-m", "scripts.watch", *args]
    return subprocess.run(
        command, cwd=place, capture_output=True, text=True, check=False, timeout=60, env={**os.environ, **env}
    )


def files(place: Path) -> dict[str, float]:
    """All files with their times."""
    return {str(p): p.stat().st_mtime for p in place.rglob("*")}


def test_the_program_prints_one_frame_and_writes_nothing(place: Path) -> None:
    write_log(place, RECORDED)
    training_files(place)
    before = files(place)
    done = run(place, "--once", COLUMNS="100")
    assert done.returncode == 0, done.stderr
    assert "finished" in done.stdout and "29 of 29 jobs" in done.stdout
    assert files(place) == before
    assert run(place, COLUMNS="100").stdout == done.stdout, "a pipe gets one frame"
    ascii_only = run(place, "--once", PYTHONIOENCODING="ascii")
    assert ascii_only.returncode == 0 and ascii_only.stdout.isascii() and "####" in ascii_only.stdout


def test_where_nothing_ever_ran_and_where_the_recipe_is_broken(tmp_path: Path) -> None:
    done = run(tmp_path, "--once")
    assert done.returncode == 0 and "no run yet" in done.stdout and "Atelier demo" in done.stdout
    (tmp_path / "bad.yaml").write_text("name: [")
    done = run(tmp_path, "--once", "bad.yaml")
    assert done.returncode == 0 and "bad.yaml" in done.stdout and "Traceback" not in done.stderr
    done = run(tmp_path, "--once", "none.yaml")
    assert done.returncode == 0 and "none.yaml: No such file" in done.stdout
    assert list(tmp_path.iterdir()) == [tmp_path / "bad.yaml"]


def test_titles_are_the_messages_of_the_rules() -> None:
    """`title_of` must say what rules/*.smk say: else a job would be shown without its files."""
    from scripts.recipe.graph import Graph
    from scripts.recipe.load import load_recipe
    from scripts.watch.state import title_of

    graph = Graph(load_recipe([ROOT / "tests/unit/recorded_recipe.yaml"], ROOT))
    titles = {title_of(name, graph) for name in graph.jobs}
    for line in [line for line in RECORDED.splitlines() if line.startswith("Job ") and line[4].isdigit()]:
        assert line.split(": ", 1)[1].split(" [")[0] in titles
    messages = " ".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    assert '"blind test of {GRAPH.recipe.name} [' in messages and '"release {wildcards.name} [' in messages
