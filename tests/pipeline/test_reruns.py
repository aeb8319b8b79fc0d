"""What reruns and what doesn't: exact job lists."""

import os
import shutil
import time
from pathlib import Path

from scripts.artifact.digest import RECORD
from scripts.artifact.record import read_record
from tests.pipeline.bench import Bench

DOWNLOAD = ["download demo-airoboros", "download demo-pippa", "download quick"]
CLEAN = ["clean demo-airoboros", "clean demo-pippa"]
REST = ["benchmark grafted on kept", "benchmark grafted on quick", "report tiny"]


def test_the_first_run_builds_every_stage(built: Bench) -> None:
    names = {path.split("/", 1)[1] for path in built.sums()}
    assert names == {
        "benchmark/grafted/kept",
        "benchmark/grafted/quick",
        "clean/demo-airoboros",
        "clean/demo-pippa",
        "create/seedling",
        "download/demo-airoboros",
        "download/demo-pippa",
        "download/quick",
        "merge/grafted",
        "mix/chats",
        "pack/sapling",
        "report",
        "train/sapling",
    }


def test_second_run_touched_files_and_comments_do_nothing(bench: Bench) -> None:
    assert bench.run().nothing
    for path in bench.folder.rglob("*"):
        if path.is_file() and "results" not in path.parts and ".snakemake" not in path.parts:
            os.utime(path)
    assert bench.run().nothing, "touching every script and every source must do nothing"
    for path in (bench.folder / "results").rglob("SHA256SUMS"):
        os.utime(path)
    time.sleep(1.1)
    assert bench.run().nothing, "touching every manifest must do nothing"
    for stage in ("clean", "pack", "train"):
        bench.append(f"scripts/{stage}/__main__.py", "\n# a comment\n")
    assert bench.run().nothing, "a comment must do nothing"


def test_a_fresh_checkout_beside_old_results_does_nothing(built: Bench, tmp_path: Path) -> None:
    fresh = Bench.fresh(tmp_path / "checkout")
    copy = built.copy(tmp_path / "old")
    for name in ("results", ".snakemake"):
        (copy.folder / name).rename(fresh.folder / name)
    assert fresh.run().nothing


def test_lost_snakemake_records_rebuild_no_bytes(bench: Bench) -> None:
    """Snakemake may want to run jobs again; each finds its own artifact by key and keeps it, without work."""
    before = bench.sums()
    stamps = {p: p.stat().st_ino for p in bench.folder.glob("results/tiny/train/*/*.safetensors")}
    assert stamps
    shutil.rmtree(bench.folder / ".snakemake")
    for path in (bench.folder / "results").rglob("SHA256SUMS"):
        path.unlink()
    run = bench.run()
    assert run.code == 0, run.output
    assert len(run.jobs) == len(before), "every job runs, and keeps what it finds"
    assert bench.sums() == before
    assert stamps == {p: p.stat().st_ino for p in stamps}, "the weights are the same files"
    assert bench.run().nothing


def test_early_cutoff_in_one_invocation(bench: Bench) -> None:
    """A harmless change of `clean` gives the same bytes: nothing below it may run."""
    before = bench.sums()
    bench.append("scripts/clean/__main__.py", "\nHARMLESS = 1\n")
    run = bench.run()
    assert run.code == 0, run.output
    assert sorted(run.jobs) == CLEAN
    assert bench.sums() == before
    key = read_record(bench.folder / "results/tiny/clean/demo-pippa" / RECORD)["key"]
    bench.append("scripts/mix/__main__.py", "\nHARMLESS = 1\n")
    assert bench.run().jobs == ["mix chats"], "in the middle of the flow too"
    assert read_record(bench.folder / "results/tiny/clean/demo-pippa" / RECORD)["key"] == key
    assert bench.run().nothing


def test_changes_of_two_stages_with_kept_artifacts_between_run_in_one_invocation(bench: Bench) -> None:
    """What lies below an artifact that is kept has reasons of its own: nothing may be left for a second run."""
    before = bench.sums()
    for stage in ("download", "train"):
        bench.append(f"scripts/{stage}/__main__.py", "\nHARMLESS = 1\n")
    run = bench.run()
    assert run.code == 0, run.output
    assert sorted(run.jobs) == [*DOWNLOAD, "train sapling"]
    assert bench.sums() == before
    for stage in ("clean", "pack", "benchmark"):
        bench.append(f"scripts/{stage}/__main__.py", "\nHARMLESS = 2\n")
    run = bench.run()
    assert run.code == 0, run.output
    assert sorted(run.jobs) == [*REST[:2], *CLEAN, "pack sapling"]
    assert bench.run().nothing


def test_a_changed_source_byte_that_changes_no_episode_stops_at_clean(bench: Bench) -> None:
    import hashlib

    source = bench.folder / "config/demo-sources/demo_airoboros.jsonl"
    old = hashlib.sha256(source.read_bytes()).hexdigest()
    size = len(source.read_bytes())
    source.chmod(0o644)
    source.write_bytes(source.read_bytes() + b"\n")
    new = hashlib.sha256(source.read_bytes()).hexdigest()
    bench.edit("config/sources/demo-airoboros.yaml", old, new)
    text = (bench.folder / "config/sources/demo-airoboros.yaml").read_text()
    (bench.folder / "config/sources/demo-airoboros.yaml").write_text(text.replace(str(size), str(size + 1)))
    run = bench.run()
    assert run.code == 0, run.output
    assert run.jobs == ["download demo-airoboros", "clean demo-airoboros"]


def test_a_helper_of_two_stages_reruns_exactly_these(bench: Bench) -> None:
    """A module that only pack and train import: its change runs pack and train; the same bytes stop it there."""
    (bench.folder / "scripts/recipe/shared_helper.py").write_text("FACTOR = 1\n")
    for stage in ("pack", "train"):
        path = bench.folder / f"scripts/{stage}/__main__.py"
        lines = path.read_text().splitlines(keepends=True)
        at = next(i for i, line in enumerate(lines) if line.lstrip().startswith("from scripts."))
        indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
        helper = f"{indent}from scripts.recipe import shared_helper  # noqa: F401\n"
        path.write_text("".join([*lines[:at], helper, *lines[at:]]))
    assert bench.run().jobs == ["pack sapling", "train sapling"]
    bench.edit("scripts/recipe/shared_helper.py", "FACTOR = 1", "FACTOR = 2")
    assert bench.run().jobs == ["pack sapling", "train sapling"]
    assert bench.run().nothing


def test_a_merge_ratio_reruns_merge_benchmark_and_report(bench: Bench) -> None:
    bench.edit(
        "tests/recipes/tiny.yaml",
        "filter: mlp, gradient_values: [0.8, 0.2]",
        "filter: mlp, gradient_values: [0.9, 0.2]",
    )
    run = bench.run()
    assert run.code == 0, run.output
    assert sorted(run.jobs) == sorted(["merge grafted", *REST])
    assert bench.run().nothing


def test_one_target_and_one_file(bench: Bench) -> None:
    """`snakemake pack`, and one file under results/."""
    bench.append("scripts/pack/__main__.py", "\nHARMLESS = 1\n")
    assert bench.run("pack").jobs == ["pack sapling"]
    assert bench.run("pack").nothing
    bench.append("scripts/merge/__main__.py", "\nHARMLESS = 1\n")
    assert bench.run("results/tiny/merge/grafted/SHA256SUMS").jobs == ["merge grafted"]


def test_a_stage_refuses_damaged_input_with_both_digests(bench: Bench) -> None:
    path = bench.folder / "results/tiny/mix/chats/train.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.chmod(0o644)
    path.write_bytes(bytes(content))
    bench.append("scripts/pack/__main__.py", "\nHARMLESS = 1\n")
    run = bench.run()
    assert run.code != 0
    log = (bench.folder / "results/tiny/logs/pack/sapling.log").read_text()
    assert "refusing to use a damaged artifact" in log
    claimed = (bench.folder / "results/tiny/mix/chats/SHA256SUMS").read_text()
    assert next(line.split()[0] for line in claimed.splitlines() if line.endswith("train.parquet")) in log
    assert "Traceback" not in log
    mend = next(line for line in log.splitlines() if line.startswith("to rebuild it: rm "))
    Path(mend.removeprefix("to rebuild it: rm ").split(" and ")[0]).unlink()
    run = bench.run()
    assert run.code == 0, run.output
    assert bench.python("-m", "scripts.artifact", "verify", "results/tiny").returncode == 0


def test_a_changed_setting_below_a_lost_artifact_is_not_up_to_date(bench: Bench) -> None:
    """Snakemake 9.27.1 by itself says "Nothing to be done" here, and leaves the old training in place."""
    before = bench.sums()
    shutil.rmtree(bench.folder / "results/tiny/pack/sapling")
    assert bench.run("train").jobs == ["pack sapling"], "what is lost comes back, and its bytes are the same"
    shutil.rmtree(bench.folder / "results/tiny/pack/sapling")
    bench.edit(bench.recipe, "learning_rate: 3.0e-3", "learning_rate: 2.0e-3")
    assert bench.run("train").jobs == ["pack sapling", "train sapling"]
    assert bench.sums()["tiny/pack/sapling"] == before["tiny/pack/sapling"]
    assert bench.sums()["tiny/train/sapling"] != before["tiny/train/sapling"]


def test_changed_code_of_two_stages_far_apart_reruns_both(bench: Bench) -> None:
    bench.append("scripts/download/__main__.py", "\nHARMLESS = 2\n")
    bench.append("scripts/train/__main__.py", "\nHARMLESS = 2\n")
    jobs = bench.run().jobs
    assert sorted(jobs) == [
        "download demo-airoboros",
        "download demo-pippa",
        "download quick",
        "train sapling",
    ], "the bytes are the same, so nothing else runs"
    for stage in ("clean", "pack", "benchmark"):
        bench.append(f"scripts/{stage}/__main__.py", "\nHARMLESS = 2\n")
    assert sorted(bench.run().jobs) == [*REST[:2], *CLEAN, "pack sapling"]
    assert bench.run().nothing


def test_explain_says_before_a_run_what_the_run_then_does(bench: Bench) -> None:
    def explained(artifact: str) -> tuple[int, str]:
        command = ("-m", "scripts.artifact", "explain", f"results/tiny/{artifact}", "--recipe", bench.recipe)
        done = bench.python(*command)
        return done.returncode, done.stdout + done.stderr

    assert explained("report") == (0, "report: up to date\n")
    bench.edit(
        bench.recipe, "filter: self_attn, gradient_values: [0.2, 0.8]", "filter: self_attn, gradient_values: [0.2, 0.7]"
    )
    bench.append("scripts/merge/__main__.py", "\nHARMLESS = 3\n")
    code, said = explained("merge/grafted")
    assert code == 1
    assert "first difference: merge/grafted: spec.operations[2].gradient_values[1]: 0.8 -> 0.7" in said
    assert "merge/grafted: code.scripts/merge/__main__.py" in said
    assert explained("train/sapling") == (0, "train/sapling: up to date\n")
    code, said = explained("report")
    assert code == 1 and "if the artifacts above come out with the same bytes, it stays" in said
