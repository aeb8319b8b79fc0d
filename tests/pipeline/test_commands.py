"""Every command that README and docs show runs here: as typed where that takes seconds, else in a shorter form.

The finished tiny recipe stands in for the demo. A command without an entry fails the first test: add it to TYPED if it
can run as it stands, else to SHORTER with what runs instead and why.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.pipeline.bench import Bench

PAGES = ["README.md", "CONTRIBUTING.md", "profiles/README.md", "config/README.md"]
PAGES += sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))
_PROGRAMS = "make|snakemake|python3?|pip|sha256sum|export(?= [A-Z_]+=)|git|tmux|docker|apptainer|conda|kubectl"
_PROGRAMS += "|sbatch|scancel|squeue"
_COMMAND = re.compile(rf"(?:[A-Z_]+=\S+ )*(?:{_PROGRAMS})(?: |$)")
_INLINE = re.compile(r"`([^`]+)`")
_REMARK = re.compile(r"\s+#.*$|\s{3,}\S.*$")

TINY = "tests/recipes/tiny.yaml"
NAMES = {
    "results/demo/merge/tiny-mythalion": "results/tiny/merge/grafted",
    "results/demo": "results/tiny",
    "locks/demo.lock": "locks/tiny.lock",
    "theirs.lock": "locks/tiny.lock",
    "config/demo.yaml": TINY,
    "config/mine.yaml": TINY,
    "config/my-recipe.yaml": TINY,
}
"""What is typed, and what stands in for it here."""

TYPED = [
    "make demo",
    # Later commands compare with the lock.
    "python -m scripts.artifact lock results/demo",
    "snakemake --cores 2 report --configfile config/mine.yaml",
    "make verify",
    "make resume",
    "snakemake -n --profile slurm-h100",
    "snakemake --cores 2 pack",
    "snakemake --cores 2 results/demo/merge/tiny-mythalion/SHA256SUMS",
    "python -m scripts.recipe check config/mine.yaml",
    "python -m scripts.recipe check config/my-recipe.yaml",
    "python -m scripts.recipe check config/mythalion-13b.yaml",
    "python -m scripts.recipe docs",
    "snakemake --cores 8 --configfile config/mine.yaml",
    "python -m scripts.benchmark grim config/published/pygmalion-2-7b.yaml",
    "python -m scripts.artifact verify results/demo",
    "python -m scripts.artifact explain results/demo/report",
    "python -m scripts.artifact lineage results/demo/merge/tiny-mythalion",
    "python -m scripts.artifact compare results/demo locks/demo.lock",
    "python -m scripts.artifact diff locks/demo.lock theirs.lock",
    "python -m scripts.artifact guard .",
    "python -m scripts.artifact --help",
    "python -m scripts.artifact gc results/demo",
    "python -m scripts.artifact export crate results/demo",
    "export ATELIER_STORE=/shared/atelier",
    "export HF_TOKEN=...",
]
_HUB, _GPU, _LONG = "needs the hub", "needs a GPU", "takes minutes"
_PIN = 'python -m scripts.recipe pin "$PWD/config/demo-sources" demo_pippa.jsonl'
_NOTHING = f"snakemake --cores 8 --configfile {TINY}"
_KUBERNETES = "test -f profiles/kubernetes/profile.yaml && test -f profiles/kubernetes/job.yaml"
SHORTER = {
    # what is typed: (what runs here, why)
    "sha256sum -c SHA256SUMS": ("cd results/tiny/merge/grafted && sha256sum -c SHA256SUMS", "in an artifact's folder"),
    "make test": ("make -n test", "is what runs this"),
    "make lint": ("make -n lint", "run whole by tests/unit/test_style.py and tests/pipeline/test_uses.py"),
    "make audit N=3": ("make -n audit N=3", "builds again what it draws; run by the tests of replay"),
    "make efficiency": (f"make efficiency RECIPE={TINY}", "the tiny recipe"),
    "make efficiency RECIPE=config/mythalion-13b.yaml": (
        f"make efficiency RECIPE={TINY}",
        "days of work lie before it",
    ),
    "make soak": ("make -n soak", "takes hours"),
    "make processors": ("make -n processors", "takes minutes, and an emulator"),
    "make slurm-up": ("make -n slurm-up", "needs Slurm's programs; run by tests/slurm"),
    "make slurm-test": ("make -n slurm-test", "needs Slurm's programs; is what runs tests/slurm"),
    "make slurm-down": ("make -n slurm-down", "needs Slurm's programs; run by tests/slurm"),
    "make install": ("make -n install", "needs a package index"),
    "make rulegraph": ("make -n rulegraph", "run by tests/pipeline/test_uses.py"),
    "make watch": ("make watch ONCE=1", "would go on until Ctrl+C"),
    "make watch ONCE=1": ("make watch ONCE=1", "an answer to the line before"),
    "python -m scripts.watch --once config/mythalion-13b.yaml": (
        "python -m scripts.watch --once config/mythalion-13b.yaml",
        "shows that there was no run",
    ),
    "make bench": ("make -n bench", _LONG),
    "make bench-gpu": ("make -n bench-gpu", _GPU),
    "make resume PROFILE=slurm-h100": ("make -n resume PROFILE=slurm-h100", "needs a cluster"),
    "make verify RECIPE=config/mythalion-13b.yaml": (f"make verify RECIPE={TINY}", "days of work lie before it"),
    "make lock RECIPE=config/mythalion-13b.yaml": (f"make lock RECIPE={TINY}", "days of work lie before it"),
    "python -m scripts.recipe pin /data/chats chats.json": (_PIN, "a folder of the user"),
    "python -m scripts.recipe pin $HOME/data mine.jsonl": (_PIN, "a folder of the user"),
    "python -m scripts.recipe pin FOLDER FILE...": (_PIN, "a folder of the user"),
    "snakemake -n": ("snakemake -n --profile slurm-h100", "any dry run"),
    "snakemake --profile slurm-h100": ("snakemake -n --profile slurm-h100", "needs a cluster"),
    "snakemake --profile slurm-a40 --configfile config/pygmalion-2-13b.yaml": (
        "snakemake -n --profile slurm-a40 --configfile config/pygmalion-2-13b.yaml",
        "needs a cluster",
    ),
    "snakemake --cores 8 --configfile config/my-recipe.yaml": (_NOTHING, "as for mine.yaml"),
    "snakemake --cores 8 release --configfile config/my-recipe.yaml": (
        f"snakemake -n release --configfile {TINY}",
        "run by tests/pipeline/test_release.py",
    ),
    "snakemake --report snakemake.html": (f"snakemake --report snakemake.html --configfile {TINY}", "the tiny recipe"),
    "python -m scripts.report page results/demo": ("python -m scripts.report page results/tiny", "the tiny recipe"),
    "python -m scripts.report compare results/demo /elsewhere/results/demo": (
        "python -m scripts.report compare results/tiny results/tiny",
        "a folder of somebody else",
    ),
    "python -m scripts.report compare results/demo results/tiny --pair tiny-roleplay=sapling --page difference.html": (
        "python -m scripts.report compare results/tiny results/tiny --page difference.html",
        "one recipe is here, not two",
    ),
    "snakemake --profile slurm-h100 plan": ("snakemake -n plan --profile slurm-h100", _LONG),
    "snakemake --profile profiles/cluster-generic --configfile RECIPE": (
        "snakemake -n --profile profiles/cluster-generic --configfile config/mythalion-13b.yaml",
        "needs a cluster",
    ),
    "snakemake --profile profiles/kubernetes --configfile RECIPE": (_KUBERNETES, "needs a cluster"),
    "kubectl apply -f profiles/kubernetes/job.yaml": (_KUBERNETES, "needs a cluster"),
    "snakemake --sdm conda --profile slurm-h100": ("snakemake -n --profile slurm-h100", "needs conda and a cluster"),
    "apptainer build atelier.sif envs/atelier.def": ("test -f envs/atelier.def", "needs apptainer and an image"),
    "pip install -r envs/train-cuda.lock": ("test -f envs/train-cuda.lock", "needs a package index, and gigabytes"),
    "pip install model-signing pyOpenSSL": (
        "python -c 'import model_signing, OpenSSL'",
        "installed already, and needs a package index",
    ),
    "snakemake --cores 8": (_NOTHING, "takes minutes; test_demo.py runs the demo"),
    "snakemake plan --profile slurm-h100": ("snakemake -n plan --profile slurm-h100", _LONG),
    "snakemake release": ("snakemake -n release", "run by tests/pipeline/test_release.py"),
    "snakemake --cores 2 release --configfile config/mine.yaml": (
        f"snakemake -n release --configfile {TINY}",
        "run by tests/pipeline/test_release.py",
    ),
    "snakemake --cores 2 release": ("snakemake -n release", "run by tests/pipeline/test_release.py"),
    "snakemake publish": ("snakemake -n publish", "run by tests/pipeline/test_release.py"),
    "snakemake --cores 2 publish": ("snakemake -n publish", "run by tests/pipeline/test_release.py"),
    "snakemake --cores 2 publish --config publish=yes": ("snakemake -n publish", _HUB),
    "snakemake blind-test": ("snakemake -n blind-test --configfile config/mythalion-13b.yaml", "run by test_blind.py"),
    "snakemake --cores 2 blind-test": (
        "snakemake -n blind-test --configfile config/mythalion-13b.yaml",
        "run by test_blind.py",
    ),
    "python -m scripts.artifact compare --listed RESULTS recipe.lock": (
        "python -m scripts.artifact compare --listed results/tiny locks/tiny.lock",
        "a pattern",
    ),
    "python -m tests.picture results/demo/report.html docs/report.png": (
        _NOTHING,
        "needs a browser; run by tests/unit/test_report_browser.py",
    ),
    "python -m scripts.artifact": ("python -m scripts.artifact --help", "wants a command"),
    "python -m scripts.<stage>": ("python -m scripts.clean --help", "a pattern"),
    "python -m scripts.<stage> --spec JSON --inputs SHA256SUMS... --output SHA256SUMS": (
        "python -m scripts.clean --help",
        "a pattern; what every rule runs",
    ),
    "python -m scripts.blind score VOTES...": ("python -m scripts.blind score --help", "run by test_blind.py"),
    "python -m scripts.chat results/demo/release/tiny-mythalion": (
        "python -m scripts.chat --help",
        "run by tests/unit/test_chat.py",
    ),
    "python -m scripts.merge show RECIPE [MODEL]": (f"python -m scripts.merge show {TINY} grafted", "a pattern"),
    "python -m scripts.merge show --hub RECIPE": ("python -m scripts.merge show --help", _HUB),
    "python -m scripts.merge import FILE [FIRST SECOND]": (
        "python -m scripts.merge import kit.yaml > merge.yaml",
        "a pattern",
    ),
    "python -m scripts.merge export RECIPE LAYERS": (f"python -m scripts.merge export {TINY} 2", "a pattern"),
    "python -m scripts.artifact diff A B": (
        "python -m scripts.artifact diff locks/tiny.lock locks/tiny.lock",
        "a pattern",
    ),
    "python -m scripts.artifact store DIR --deep": (
        "python -m scripts.artifact store --help",
        "run by the store's tests",
    ),
    "python -m scripts.artifact replay results/demo -n 3": ("python -m scripts.artifact replay --help", _LONG),
    "python -m scripts.artifact replay results/tiny -n 2 --seed 1": ("python -m scripts.artifact replay --help", _LONG),
    "python -m scripts.artifact sign RELEASE --key KEY.pem": ("python -m scripts.artifact sign --help", "needs a key"),
    "python -m scripts.artifact sign results/demo/release/tiny-mythalion --key key.pem": (
        "python -m scripts.artifact sign --help",
        "needs a key and a release; run by the tests of signatures",
    ),
    "python -m model_signing verify key --signature results/demo/release/tiny-mythalion.sig --public_key key.pub"
    " results/demo/release/tiny-mythalion": (
        "python -m model_signing verify key --help",
        "needs a key and a release; run by the tests of signatures",
    ),
    "python -m scripts.artifact explain results/tiny/merge/grafted --recipe tests/recipes/tiny.yaml": (
        "python -m scripts.artifact explain results/tiny/merge/grafted --recipe tests/recipes/tiny.yaml",
        "without the changed ratio, which test_explain.py has",
    ),
    "python -m scripts.train plan config/pygmalion-2-7b.yaml --gpu a40": ("python -m scripts.train plan --help", _LONG),
    "python -m scripts.train plan config/pygmalion-2-7b.yaml --gpu a40 --price 2": (
        "python -m scripts.train plan --help",
        "run by tests/unit/test_train_plan.py",
    ),
    "python -m scripts.train plan config/mythalion-13b.yaml --gpu h100 --price 2": (
        "python -m scripts.train plan --help",
        "run by tests/unit/test_train_plan.py",
    ),
    "python -m scripts.train plan RECIPE --model NAME --mfu 0.5 --price 2 --tokens 432000000 --json": (
        "python -m scripts.train plan --help",
        "a pattern",
    ),
    "python -m scripts.recipe import-axolotl FILE --model NAME --mixture NAME > part.yaml": (
        "python -m scripts.recipe import-axolotl --help",
        "run by tests/unit/test_axolotl.py",
    ),
}
KIT = """models:
- {model: seedling, parameters: {weight: 0.5}}
- {model: sapling, parameters: {weight: 0.5}}
merge_method: linear
dtype: float16
"""
"""A configuration of mergekit, to import and export."""
BENCHES = re.compile(r"(?:[A-Z_]+=\S+ )*python -m tests\.bench(?:\.| )(bench_\w+)(?: [\w.]+)*$")
"""Benchmarks take minutes and peers that are not installed: that their modules are there is what is tested."""


def shown() -> dict[str, str]:
    """Return {command: where it is shown first} of all pages."""
    found: dict[str, str] = {}
    for page in PAGES:
        fenced = False
        for number, line in enumerate((ROOT / page).read_text(encoding="utf-8").splitlines(), 1):
            if line.lstrip().startswith("```"):
                fenced = not fenced
            elif fenced or line.startswith("    "):
                text = _REMARK.sub("", line.strip().removeprefix("$ "))
                if _COMMAND.match(text) or line.strip().startswith("$ "):
                    found.setdefault(text, f"{page}:{number}")
            else:
                for text in _INLINE.findall(line):
                    if _COMMAND.match(text) and " " in text:
                        found.setdefault(text, f"{page}:{number}")
    return found


def test_every_command_has_an_entry_and_every_entry_a_command() -> None:
    commands = {command: place for command, place in shown().items() if not BENCHES.match(command)}
    entries = [*TYPED, *SHORTER]
    missing = {command: place for command, place in commands.items() if command not in entries}
    assert missing == {}, "commands of the documentation that nothing runs: add them to TYPED or SHORTER"

    stale = [entry for entry in entries if entry not in commands]
    assert stale == [], "entries that no page shows any more"
    assert all(reason for _, reason in SHORTER.values())


def test_every_benchmark_that_is_named_is_there() -> None:
    named = [match[1] for match in map(BENCHES.match, shown()) if match]
    assert named
    for name in named:
        assert (ROOT / "tests/bench" / f"{name}.py").is_file(), name


def here(command: str) -> str:
    """Return what is run for a typed command."""
    for typed, stand_in in NAMES.items():
        command = command.replace(typed, stand_in)
    if command.startswith("make ") and "RECIPE=" not in command and "PROFILE=" not in command:
        command += f" RECIPE={TINY}"
    if command.startswith("snakemake ") and "--configfile" not in command and "--profile" not in command:
        command += f" --configfile {TINY}"
    return command


@pytest.fixture(scope="module")
def checkout(built: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with the finished tiny recipe and an environment, as after `make install`."""
    folder = built.copy(tmp_path_factory.mktemp("commands") / "atelier").folder
    (folder / "Makefile").write_text((ROOT / "Makefile").read_text())
    (folder / "kit.yaml").write_text(KIT)
    (folder / "config" / "tiny.yaml").write_text((ROOT / TINY).read_text())  # found by the name of its results
    (folder / ".venv").mkdir()
    for path in Path(sys.prefix).iterdir():  # `pyvenv.cfg` too, which makes it an environment
        if path.name != "installed":
            (folder / ".venv" / path.name).symlink_to(path)
    (folder / ".venv" / "installed").touch()
    return folder


def test_commands_run(checkout: Path) -> None:
    """In the order of TYPED, then SHORTER; equal ones once."""
    environment = {**os.environ, "PATH": f"{checkout}/.venv/bin:{os.environ['PATH']}"}
    environment = {key: value for key, value in environment.items() if key != "PYTHONPATH" and "MAKE" not in key}
    failed = {}
    for command in dict.fromkeys([*map(here, TYPED), *(here(command) for command, _ in SHORTER.values())]):
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=checkout,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode:
            failed[command] = (done.returncode, (done.stdout + done.stderr)[-1500:])
    assert failed == {}
