"""R7, R8, R9 on one whole run: no network, hostile texts in the recipe, secrets in the environment."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from tests.faults.programs import in_soak
from tests.faults.shim import needs_gcc, no_network
from tests.pipeline.bench import Bench
from tests.pipeline.conftest import logs
from tests.security.alone import NOT_ALLOWED

CANARY = "hf_CANARY7391xQ"
SECRETS = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "WANDB_API_KEY",
    "AWS_SECRET_ACCESS_KEY",
    "GITHUB_TOKEN",
    "MY_PASSWORD",
)
MARK = "PWNED"
# What each reader of a text could take for its own syntax: the shell, Snakemake's and Python's formats, HTML, jinja,
# TeX, and terminals.
HOSTILE = (
    f"$(touch {MARK}) `touch {MARK}` ; touch {MARK} | touch {MARK} & touch {MARK} # ' \" \\\\ "
    f"{{input}} {{params.spec}} {{__import__('os').mkdir('{MARK}')}} %(x)s $HF_TOKEN ${{HF_TOKEN}} "
    f"{{{{ cycler.__init__.__globals__.os.mkdir('{MARK}') }}}} <script>alert(1)</script> <img src=x onerror=alert(2)> "
    f"</title></style> \\u001b]0;x\\u0007 !{MARK} ~ * ? <!-- ünïcode"
)


@dataclass
class Whole:
    """What the one run left."""

    bench: Bench
    output: str
    attempts: Path
    home: Path
    alone: bool
    """Whether it ran in a network of its own."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    """The tiny recipe with hostile texts, secrets in the environment and no network, from the first job to the last."""
    own = tmp_path_factory.getbasetemp()
    root = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "whole"
    with FileLock(f"{root}.lock"):
        done = root / "done"
        if not done.exists():
            bench = hostile(Bench.fresh(root / "atelier"))
            (root / "home").mkdir()
            variables = {**no_network(root), **dict.fromkeys(SECRETS, CANARY), "HOME": str(root / "home")}
            output, alone = run_alone(bench, variables)
            (root / "output").write_text(output)
            done.write_text(str(alone))
    yield Whole(
        Bench(root / "atelier"),
        (root / "output").read_text(),
        root / "net.log",
        root / "home",
        done.read_text() == "True",
    )


def hostile(bench: Bench) -> Bench:
    """Write the hostile text wherever a recipe takes free text."""
    bench.edit(bench.recipe, "title: Atelier in miniature", f'title: "{quoted()}"')
    bench.edit(bench.recipe, "title: A handful of questions", f'title: "{quoted()}"')
    bench.edit(bench.recipe, "{filter: lm_head,", f'{{operation: "{quoted()}", filter: lm_head,')
    source = (bench.folder / "config/sources/demo-pippa.yaml").read_text().splitlines()
    changed = [
        f'{line.split(":")[0]}: "{quoted()}"' if line.startswith(("title:", "license:")) else line for line in source
    ]
    assert changed != source
    (bench.folder / "config/sources/demo-pippa.yaml").write_text("\n".join([*changed, ""]))
    return bench


def quoted() -> str:
    """Return the hostile text inside double quotes of YAML."""
    return HOSTILE.replace('"', '\\"')


def run_alone(bench: Bench, variables: dict[str, str]) -> tuple[str, bool]:
    """Run the whole recipe, in a network of its own where that is allowed; return (output, whether it was)."""
    for wrapper in ([sys.executable, "-m", "tests.security.alone"], []):
        environment = bench.environment(**variables)
        if wrapper:
            environment["PYTHONPATH"] = str(Path(__file__).parents[2])
        done = subprocess.run(
            [*wrapper, *bench.command()],
            cwd=bench.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        if done.returncode != NOT_ALLOWED:
            assert done.returncode == 0, done.stdout + logs(bench)
            return done.stdout, bool(wrapper)
    raise AssertionError("unreachable")


pytestmark = [needs_gcc(), in_soak, pytest.mark.slow]


def test_every_stage_runs_without_a_network(whole: Whole) -> None:
    assert len(whole.bench.sums()) == 13
    tried = whole.attempts.read_text() if whole.attempts.exists() else ""
    assert tried == "", f"tried to reach another machine:\n{tried}"
    if not whole.alone:
        pytest.skip("no network namespace allowed here; attempts were caught by the shim alone, and there were none")


def test_the_shim_would_have_told(tmp_path: Path) -> None:
    """Else an empty log would prove nothing."""
    code = "import socket\ntry: socket.create_connection(('192.0.2.1', 80), 2)\nexcept OSError as e: print(e)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **no_network(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "unreachable" in done.stdout
    assert "connect" in (tmp_path / "net.log").read_text()


def test_hostile_texts_execute_nothing(whole: Whole) -> None:
    assert not list(whole.bench.folder.rglob(f"*{MARK}*"))
    merged = (whole.bench.folder / "results/tiny/merge/grafted/merge.json").read_text()
    assert f"$(touch {MARK})" in merged, "it did reach the stage"


def test_hostile_texts_are_text_on_the_page(whole: Whole) -> None:
    page = (whole.bench.folder / "results/tiny/report/index.html").read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page, "the title is on the page"
    assert "<script>alert(1)" not in page and "<img src=x" not in page
    assert "\x1b]0;" not in page


def test_hostile_texts_do_not_drive_the_terminal(whole: Whole) -> None:
    card = whole.bench.python("-m", "scripts.report", "scorecard", "results/tiny")
    assert card.returncode == 0, card.stderr
    assert "\x1b" not in card.stdout + whole.output and "\x07" not in card.stdout + whole.output


def test_secrets_appear_nowhere(whole: Whole) -> None:
    """Results, logs, work folders, Snakemake's records and reports, libraries' caches, and the screen."""
    roots = [whole.bench.folder, whole.home]
    files = [p for root in roots for p in root.rglob("*") if p.is_file() and not p.is_symlink()]
    assert len(files) > 200
    assert [str(p) for p in files if CANARY.encode() in p.read_bytes() or CANARY in str(p)] == []
    assert CANARY not in whole.output


def test_secrets_do_not_appear_when_jobs_fail(whole: Whole, tmp_path: Path) -> None:
    """A failing job tells much about itself: still nothing of the environment."""
    bench = whole.bench.copy(tmp_path / "copy")
    bench.edit("scripts/mix/__main__.py", "run_stage(", "raise RuntimeError(repr(locals()))\n    run_stage(")
    variables = dict.fromkeys(SECRETS, CANARY)
    failed = bench.run("--printshellcmds", "--show-failed-logs", "--verbose", **variables)
    assert failed.code != 0 and "RuntimeError" in failed.output
    assert CANARY not in failed.output
    files = [p for p in bench.folder.rglob("*") if p.is_file() and not p.is_symlink()]
    assert [str(p) for p in files if CANARY.encode() in p.read_bytes()] == []
