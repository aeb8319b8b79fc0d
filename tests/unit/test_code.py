"""The digest of a stage's code: what it sees, what it ignores."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.artifact.code import ROOT, closure, stage_code
from scripts.artifact.digest import ArtifactError

TREE = {
    "scripts/__init__.py": "",
    "scripts/artifact/__init__.py": "",
    "scripts/artifact/stage.py": "from scripts.artifact import inner\n",
    "scripts/artifact/inner.py": "A = 1\n",
    "scripts/recipe/__init__.py": "",
    "scripts/recipe/helper.py": '"""Doc."""\n\n\ndef twice(x: int) -> int:\n    """Doc."""\n    return 2 * x\n',
    "scripts/recipe/unused.py": "B = 1\n",
    "scripts/pack/__init__.py": "",
    "scripts/pack/__main__.py": "from scripts.artifact.stage import inner\nfrom scripts.recipe import helper\n",
    "scripts/pack/template.html": "<p>",
    "scripts/train/__init__.py": "",
    "scripts/train/__main__.py": "import scripts.recipe.helper\n",
}


def digests(root: Path) -> dict[str, str]:
    """Return the digests of both stages in a fresh interpreter (parsed files are remembered within one)."""
    code = "import sys; from pathlib import Path; from scripts.artifact.code import stage_code as s\n"
    code += "print(s('pack', Path(sys.argv[1])), s('train', Path(sys.argv[1])))"
    done = subprocess.run([sys.executable, "-c", code, str(root)], cwd=ROOT, capture_output=True, text=True, check=True)
    return dict(zip(("pack", "train"), done.stdout.split(), strict=True))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small package of two stages and a helper."""
    for name, text in TREE.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


CHANGES = [
    ("scripts/recipe/helper.py", ("return 2 * x", "return (2 *  x)  # twice"), []),
    ("scripts/recipe/helper.py", ('"""Doc."""', '"""Another text."""'), []),
    ("scripts/recipe/helper.py", ("return 2 * x", "return 3 * x"), ["pack", "train"]),
    ("scripts/recipe/helper.py", ("2 * x", "2.0 * x"), ["pack", "train"]),
    ("scripts/recipe/unused.py", ("1", "2"), []),
    ("scripts/artifact/inner.py", ("1", "2"), []),
    ("scripts/pack/template.html", ("<p>", "<b>"), ["pack"]),
    ("scripts/train/__main__.py", ("import scripts.recipe.helper", "import scripts.recipe.unused"), ["train"]),
    ("scripts/recipe/__init__.py", ("", "C = 1\n"), ["pack", "train"]),
]


@pytest.mark.parametrize(("name", "change", "stages"), CHANGES)
def test_what_changes_a_digest(tree: Path, name: str, change: tuple[str, str], stages: list[str]) -> None:
    before = digests(tree)
    path = tree / name
    path.write_text(path.read_text().replace(*change) if change[0] else change[1])
    after = digests(tree)
    assert [stage for stage in before if before[stage] != after[stage]] == stages


def test_digest_does_not_depend_on_the_place(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("elsewhere") / "x"
    shutil.copytree(tree, other)
    assert digests(tree) == digests(other)


def test_closures_of_the_real_stages_reach_no_other_stage() -> None:
    stages = {p.name for p in (ROOT / "scripts").iterdir() if p.is_dir()} - {"artifact", "recipe", "__pycache__"}
    for stage in sorted(stages):
        rooms = {path.relative_to(ROOT / "scripts").parts[0] for path in closure(stage)}
        assert rooms & stages == {stage}
        assert len(stage_code(stage)) == 64


@pytest.mark.parametrize(
    ("lost", "by"),
    [
        ("scripts/recipe/helper.py", "scripts/pack/__main__.py"),
        ("scripts/artifact/inner.py", ""),
        ("scripts/pack/__main__.py", ""),
    ],
)
def test_half_a_checkout_is_named(tree: Path, lost: str, by: str) -> None:
    (tree / lost).unlink()
    if "inner" in lost:  # imported by the door only, which is no part of a stage's result
        assert closure("pack", tree)
        return
    with pytest.raises(ArtifactError, match=rf"{lost}: missing.*{by}.*git checkout -- {lost}"):
        closure("pack", tree)
