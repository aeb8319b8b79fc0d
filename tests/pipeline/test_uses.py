"""The three uses, bad recipes, the rule graph, and the rules' own style."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.pipeline.bench import Bench


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed and uncommitted files of the checkout, without results."""
    return Bench.fresh(tmp_path_factory.mktemp("clone") / "atelier").folder


def snakemake(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run `snakemake ARGS` as typed."""
    command = [sys.executable, "-m", "snakemake", *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


PROFILES = {
    "slurm-a40": ("pygmalion-2-7b", ["train pygmalion-2-7b [8 GPUs", "gpu_model"]),
    "slurm-h100": (
        "mythalion-13b",
        ["train pygmalion-2-13b [8 GPUs", "merge mythalion-13b [", "benchmark mythalion-13b on"],
    ),
}


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_profile_prints_its_jobs_in_a_fresh_clone(clone: Path, profile: str) -> None:
    recipe, wanted = PROFILES[profile]
    done = snakemake(clone, "-n", "--profile", profile)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert f"results/{recipe}/" in output
    for text in wanted[:-1] if profile == "slurm-a40" else wanted:
        assert text in output
    assert re.search(r"\[8 GPUs, \d+ threads, \d+ MB, \d+ min\]", output)
    assert not (clone / "profiles" / "default").exists(), "it would override --profile silently"


def test_the_committed_rule_graph_is_current(clone: Path) -> None:
    done = snakemake(clone, "report", "--rulegraph")
    assert done.returncode == 0, done.stderr
    committed = (ROOT / "docs" / "rulegraph.dot").read_text()

    def edges(text: str) -> set[tuple[str, str]]:
        names = dict(re.findall(r'(\d+)\[label = "(\w+)', text))
        return {(names[a], names[b]) for a, b in re.findall(r"(\d+) -> (\d+)", text)}

    assert edges(done.stdout) == edges(committed), "run `make rulegraph` and commit the picture"
    assert ("train_model", "merge_models") in edges(committed)


BAD = {
    "unknown key": (
        "val_set_size: 0.1",
        "val_set_sise: 0.1",
        'val_set_sise: unknown key; allowed: .*did you mean "val_set_size"',
    ),
    "wrong type": ("seed: 7", "seed: seven", "seed: found 'seven'"),
    "missing model": (
        "models: [seedling, sapling]",
        "models: [seedling, saplin]",
        "'saplin' is not in the table.*\"sapling\"",
    ),
    "cycle": ("base: seedling", "base: grafted", "is made from itself: .*grafted"),
    "unknown source": ("demo-pippa: {max", "demo-pipa: {max", "unknown source 'demo-pipa'.*\"demo-pippa\""),
    "unknown suite": ("suites: [quick, kept]", "suites: [quick, cept]", "unknown suite 'cept'"),
    "twice": ("seed: 7", "seed: 7\nseed: 8", "seed: given twice"),
    "no yaml": ("seed: 7", "seed: [7", "."),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_bad_recipes_end_before_any_job_with_one_message(clone: Path, tmp_path: Path, case: str) -> None:
    old, new, pattern = BAD[case]
    text = (ROOT / "tests/recipes/tiny.yaml").read_text()
    assert old in text
    recipe = tmp_path / "bad.yaml"
    recipe.write_text(text.replace(old, new, 1))
    done = snakemake(clone, "--cores", "1", "--configfile", str(recipe))
    output = done.stdout + done.stderr
    assert done.returncode != 0
    assert "Traceback" not in output
    assert re.search(pattern, output), output
    if case != "no yaml":
        assert len(re.findall(r"bad\.yaml:\d+: ", output)) == 1, output
    assert not (clone / "results").exists()


def test_a_key_on_the_command_line_that_no_recipe_has_is_refused(clone: Path) -> None:
    done = snakemake(clone, "-n", "--config", "hf_token=hf_CANARY")
    output = done.stdout + done.stderr
    assert done.returncode != 0
    assert "hf_token: unknown key" in output


def test_a_mistyped_target_is_no_traceback(clone: Path) -> None:
    done = snakemake(clone, "-n", "results/demo/train/tiny-rolplay/SHA256SUMS")
    output = done.stdout + done.stderr
    assert done.returncode != 0
    assert "no model 'tiny-rolplay' is trained by recipe demo" in output
    assert 'did you mean "tiny-roleplay"?' in output
    assert "KeyError" not in output


def test_dry_run_parses_quickly_and_reads_no_weights(clone: Path) -> None:
    """A bound that only catches importing torch or hashing big files at parse time, not a timing test."""
    code = "import sys, runpy; sys.argv = ['snakemake', '-n', '--quiet']\n"
    code += "import snakemake.cli\n"
    code += "try:\n    snakemake.cli.main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
    code += "heavy = 'torch', 'transformers', 'datasets', 'lm_eval', 'altair', 'sentencepiece'\n"
    code += "print([m for m in heavy if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=clone, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_lint_and_format_of_the_rules(clone: Path) -> None:
    done = snakemake(clone, "--lint")
    assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run(
        [sys.executable, "-m", "snakefmt", "--check", "Snakefile", "rules"],
        cwd=clone,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_shell_placeholder_is_quoted() -> None:
    """An unquoted placeholder runs what a hostile recipe writes into it."""
    for path in [ROOT / "Snakefile", *sorted((ROOT / "rules").glob("*.smk"))]:
        for block in re.findall(r"^    shell:\n((?:        .*\n)+)", path.read_text(), re.M):
            for placeholder in re.findall(r"\{([^}]*)\}", block):
                assert placeholder.endswith(":q"), f"{path.name}: {{{placeholder}}}"
    assert "run:" not in "".join(p.read_text() for p in (ROOT / "rules").glob("*.smk"))


def test_hostile_values_in_a_recipe_execute_nothing(bench: Bench, tmp_path: Path) -> None:
    """A label of the merge is free text and part of the job's spec, so it stands on the shell's line."""
    mark = tmp_path / "PWNED"
    hostile = f"$(touch {mark}); `touch {mark}`; ' ; touch {mark} ; '"
    bench.edit(bench.recipe, "{filter: lm_head,", f'{{operation: "{hostile}", filter: lm_head,')
    run = bench.run("merge")
    assert run.code == 0, run.output
    assert run.jobs == ["merge grafted"]
    assert hostile in (bench.folder / "results/tiny/merge/grafted/merge.json").read_text(), "it did reach the stage"
    assert not mark.exists()


def test_a_token_in_the_environment_appears_nowhere(bench: Bench) -> None:
    bench.append("scripts/clean/__main__.py", "\nHARMLESS = 2\n")
    assert bench.run(HF_TOKEN="hf_CANARY_7391").code == 0
    found = [
        str(path)
        for path in bench.folder.rglob("*")
        if path.is_file() and b"hf_CANARY_7391" in path.read_bytes() and "tests" not in path.parts
    ]
    assert found == []
