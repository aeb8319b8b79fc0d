"""The blind test: an even and secret choice, a page that knows no names, and what becomes of votes."""

import json
import math
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from scripts.artifact.stage import Job, StageError
from scripts.blind.agreement import alpha, equal_share, with_others
from scripts.blind.build import KEY, PAGE, build
from scripts.blind.choose import secret_of
from scripts.blind.ratings import rate, strengths
from scripts.blind.votes import Judged
from scripts.recipe.blind import BlindSpec
from scripts.recipe.graph import Graph
from scripts.recipe.load import load_recipe
from scripts.recipe.problems import RecipeError
from tests.conftest import ROOT
from tests.unit.blind_fixtures import CANDIDATES, HOSTILE, make_job


def built(root: Path, **settings: Any) -> tuple[Job[BlindSpec], dict[str, Any], dict[str, Any]]:
    """Build; return the job, what the page holds, and the key."""
    job = make_job(root, **settings)
    build(job)
    page = (job.out / PAGE).read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found is not None
    return job, json.loads(found[1]), json.loads((job.out / KEY).read_text())


def test_pairs_and_sides_are_even_and_the_source_that_must_not_be_shown_is_not(tmp_path: Path) -> None:
    job, page, key = built(tmp_path)
    rows = key["comparisons"]
    # 5 conversations may be shown; on the last the tuned and the merged one agree.
    assert Counter(frozenset((r["left"], r["right"])) for r in rows.values()) == {
        frozenset(("oak-base", "oak-tuned")): 5,
        frozenset(("oak-base", "oak-merged")): 5,
        frozenset(("oak-tuned", "oak-merged")): 4,
    }
    for a, b in (("oak-base", "oak-tuned"), ("oak-base", "oak-merged"), ("oak-tuned", "oak-merged")):
        sides = Counter(r["left"] for r in rows.values() if {r["left"], r["right"]} == {a, b})
        assert abs(sides[a] - sides[b]) <= 1
    assert not [r for r in rows.values() if r["conversation"].startswith("secret-logs")]
    assert set(rows) == {c["id"] for c in page["comparisons"]} and page["test"] == key["test"]
    assert job.counts == {"comparisons": 14, "conversations": 5, "hidden_conversations": 1}


def test_fewer_comparisons_stay_even(tmp_path: Path) -> None:
    _, page, key = built(tmp_path, comparisons=7)
    assert len(page["comparisons"]) == 7
    pairs = Counter(frozenset((r["left"], r["right"])) for r in key["comparisons"].values())
    assert sorted(pairs.values()) == [2, 2, 3]


def test_the_page_knows_no_name_and_shows_hostile_text_as_text(tmp_path: Path) -> None:
    job, page, key = built(tmp_path)
    text = (job.out / PAGE).read_text(encoding="utf-8")
    for word in (*CANDIDATES, "oak", "tales", "secret-logs", *(r["conversation"] for r in key["comparisons"].values())):
        assert word not in text, word
    assert text.count("</script>") == 2 and "<!--" not in text
    assert HOSTILE in page["comparisons"][0]["opening"][0]["text"]
    assert not re.findall(r'(?:src|href)="(?!data:)', text), "it loads nothing"
    assert "default-src 'none'" in text


def test_who_is_who_cannot_be_worked_out_from_what_is_public(tmp_path: Path) -> None:
    """The sides hang on likelihoods that neither the page nor a lock holds, not on the recipe's seed."""
    job, _, key = built(tmp_path / "a")
    folders = {m: job.inputs[f"benchmark/{m}/talk"] for m in CANDIDATES}
    before = secret_of(folders)
    table = pq.read_table(folders["oak-base"] / "samples.parquet").to_pylist()
    table[0]["loglikelihoods"][0] += 1e-12
    other = make_job(tmp_path / "b")
    path = other.inputs["benchmark/oak-base/talk"] / "samples.parquet"
    pq.write_table(pq.read_table(path).from_pylist(table), path)
    build(other)
    assert secret_of({m: other.inputs[f"benchmark/{m}/talk"] for m in CANDIDATES}) != before
    changed = json.loads((other.out / KEY).read_text())
    assert set(changed["comparisons"]) != set(key["comparisons"])


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    one, two = built(tmp_path / "a")[0], built(tmp_path / "b")[0]
    for name in (PAGE, KEY):
        assert (one.out / name).read_bytes() == (two.out / name).read_bytes()


@pytest.mark.parametrize("layout", ["metharme", "chatml", "alpaca"])
def test_markers_of_every_format_are_taken_off(tmp_path: Path, layout: str) -> None:
    _, page, key = built(tmp_path, layout=layout)
    shown = page["comparisons"][0]
    number = re.search(r"keep lamp (\d)", shown["opening"][0]["text"])
    assert number is not None
    i = int(number[1])
    assert [(t["role"], t["text"]) for t in shown["opening"]] == [
        ("scene", f"You keep lamp {i}. {HOSTILE}"),
        ("user", f"Question 0 to keeper {i}?"),
    ]
    row = key["comparisons"][shown["id"]]
    for side in ("left", "right"):
        assert [t["role"] for t in shown[side]] == ["reply", "user", "reply"]
        assert shown[side][1]["text"] == f"Question 1 to keeper {i}?"
        assert all(t.get("cut", False) is (row[side] == "oak-base") for t in shown[side] if t["role"] == "reply")


def test_candidates_that_answered_other_conversations_are_refused(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    path = job.inputs["benchmark/oak-tuned/talk"] / "generations.parquet"
    rows = pq.read_table(path).to_pylist()
    pq.write_table(pq.read_table(path).from_pylist(rows[:-1]), path)
    with pytest.raises(StageError, match="oak-tuned and oak-base answered other conversations"):
        build(job)


def test_replies_to_a_text_that_no_mixture_holds_are_refused(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    path = job.inputs["mix/chats"] / "validation.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(StageError, match="item 0: no held-out row of chats has this text"):
        build(job)


def test_nothing_to_compare_is_said(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    hidden = job.spec.model_copy(update={"hidden_sources": ["tales", "secret-logs"]})
    job.spec = hidden
    with pytest.raises(StageError, match="blind_test.show_private"):
        build(job)


BAD = {
    "unknown model": ({"models": ["seedling", "saplin"]}, "'saplin' is not in the table.*\"sapling\""),
    "one model": ({"models": ["seedling"]}, "blind_test.models"),
    "twice": ({"models": ["seedling", "seedling"]}, "named twice"),
    "unknown suite": ({"models": ["seedling", "sapling"], "suite": "roleplay"}, "unknown suite 'roleplay'.*role-play"),
    "checkpoint of no model": ({"models": ["seedling", "saplin@2"]}, "'saplin' is not in the table.*\"sapling\""),
    "not kept": (
        {"models": ["seedling", "sapling@2"]},
        r"models\[1\]: checkpoint 'sapling@2': is not kept; models.sapling.train.cadence.keep_checkpoints keeps: none",
    ),
    "no training": (
        {"models": ["sapling", "seedling@2"]},
        "checkpoint 'seedling@2': only a trained model has checkpoints; trained here: sapling",
    ),
    "no step": ({"models": ["seedling", "sapling@"]}, "found 'sapling@'; allowed: the name of a model, or MODEL@STEP"),
    "step 0": ({"models": ["seedling", "sapling@0"]}, "found 'sapling@0'; allowed"),
    "a path": ({"models": ["seedling", "../sapling@2"]}, "found '../sapling@2'; allowed"),
    "a line's end": ({"models": ["seedling", "sapling@2\n"]}, r"found 'sapling@2\\n'; allowed"),
    "no replies": ({"models": ["seedling", "sapling"], "suite": "kept"}, "no task of format generation"),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_bad_settings_end_in_one_message(case: str) -> None:
    settings, pattern = BAD[case]
    with pytest.raises(RecipeError) as caught:
        load_recipe([ROOT / "tests/recipes/tiny.yaml"], ROOT, {"blind_test": settings})
    assert len(caught.value.problems) == 1
    assert re.search(pattern, caught.value.problems[0]), caught.value.problems


def test_what_only_testers_need_is_part_of_no_other_target() -> None:
    plain = Graph(load_recipe([ROOT / "tests/recipes/tiny.yaml"], ROOT))
    asked = Graph(
        load_recipe([ROOT / "tests/recipes/tiny.yaml"], ROOT, {"blind_test": {"models": ["seedling", "sapling"]}})
    )
    new = set(asked.jobs) - set(plain.jobs)
    assert new == {("blind", ""), *asked.on_demand}
    assert asked.on_demand == {("benchmark", "seedling/role-play"), ("benchmark", "sapling/role-play")}
    for artifact, job in plain.jobs.items():
        assert asked.jobs[artifact].spec.identity() == job.spec.identity() and asked.jobs[artifact].inputs == job.inputs


# -- votes ------------------------------------------------------------------------------------------------------------


def judged(tester: str, comparison: int, choice: str, left: str = "a", right: str = "b") -> Judged:
    """One vote."""
    return Judged(tester, f"c{comparison}", f"talk-{comparison}", left, right, choice, "")  # type: ignore[arg-type]


def ratings(wins: dict[tuple[str, str], float], names: list[str]) -> dict[str, float]:
    """Ratings by name of one table of wins."""
    import numpy as np

    table = [[wins.get((a, b), 0.0) for b in names] for a in names]
    return dict(zip(names, strengths(np.array([table]))[0], strict=True))


def test_ratings_are_the_closed_form_of_two_candidates() -> None:
    """With half a win and half a loss against the average, s wins of n: where the slope is 0."""
    found = ratings({("a", "b"): 9.0, ("b", "a"): 3.0}, ["a", "b"])
    p = math.exp(found["a"] / 400 * math.log(10))  # mean 0: b is 1/p
    assert found["a"] == pytest.approx(-found["b"])
    stationary = 9.5 - (12 * p / (p + 1 / p) + 1 * p / (p + 1))
    assert stationary == pytest.approx(0, abs=1e-6)


def test_ratings_agree_with_a_general_optimizer() -> None:
    """The penalised likelihood, maximised by scipy."""
    import numpy as np
    from scipy.optimize import minimize

    names = ["a", "b", "c", "d"]
    wins = {("a", "b"): 7.0, ("b", "a"): 2.5, ("b", "c"): 4.0, ("c", "b"): 4.0, ("c", "d"): 6.0, ("d", "a"): 3.0}

    def loss(x: "np.ndarray[Any, Any]") -> float:
        place = dict(zip(names, x, strict=True))
        total = sum(w * np.log1p(np.exp(place[b] - place[a])) for (a, b), w in wins.items())
        return float(total + sum(0.5 * (np.log1p(np.exp(-v)) + np.log1p(np.exp(v))) for v in x))

    best = minimize(loss, np.zeros(4), tol=1e-12).x
    best = (best - best.mean()) * 400 / math.log(10)
    found = ratings(wins, names)
    assert [found[n] for n in names] == pytest.approx(list(best), abs=0.05)


def test_a_candidate_that_always_wins_stays_finite_and_intervals_hold_the_rating() -> None:
    votes = [judged("t", i, "left") for i in range(12)] + [judged("t", 12, "neither"), judged("u", 13, "")]
    first, second = rate(votes, ["a", "b"])
    assert (first.candidate, first.won, first.lost, first.tied) == ("a", 12, 0, 1)
    assert 0 < first.value < 800 and first.value == pytest.approx(-second.value)
    assert first.low is not None and first.high is not None and first.low <= first.value <= first.high
    assert rate(votes, ["a", "b"]) == rate(list(reversed(votes)), ["a", "b"])


def test_alpha_is_krippendorffs_own_example() -> None:
    """Four observers, twelve units, missing values: nominal alpha 0.743 in his paper of 2011."""
    rows = [
        "1 2 3 3 2 1 4 1 2 . . .",
        "1 2 3 3 2 2 4 1 2 5 . 3",
        ". 3 3 3 2 3 4 2 2 5 1 .",
        "1 2 3 3 2 4 4 1 2 5 1 .",
    ]
    units: dict[str, dict[str, str]] = {}
    for observer, row in enumerate(rows):
        for unit, value in enumerate(row.split()):
            if value != ".":
                units.setdefault(str(unit), {})[str(observer)] = value
    assert alpha(units) == pytest.approx(0.743, abs=0.0005)
    assert alpha({"1": {"a": "left"}}) is None
    assert alpha({"1": {"a": "left", "b": "left"}}) is None, "one value alone: nothing is expected by chance"


def test_agreement_of_each_tester() -> None:
    units = {"1": {"x": "left", "y": "left", "z": "right"}, "2": {"x": "tie", "y": "tie"}, "3": {"z": "left"}}
    assert equal_share(units) == (2, 0.5)
    assert with_others(units) == {"x": (2, 2 / 3), "y": (2, 2 / 3), "z": (2, 0.0)}


def vote_file(page: dict[str, Any], path: Path, tester: str, pick: Any) -> Path:
    """What the page saves, by a rule instead of a hand."""
    votes = {c["id"]: {"choice": pick(c), "comment": ""} for c in page["comparisons"]}
    path.write_text(json.dumps({"test": page["test"], "tester": tester, "votes": votes}))
    return path


def score(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run the program where the recipe's results lie."""
    command = [sys.executable, "-m", "scripts.blind", "score", *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """A folder with `results/oak`, the content of its page, and its key."""
    root = tmp_path_factory.mktemp("score")
    _, content, key = built(root)
    (root / "results").rename(root / "oak")
    (root / "results").mkdir()
    (root / "oak").rename(root / "results" / "oak")
    return root, content, key


def test_score_finds_the_key_and_ranks_as_the_testers_did(
    page: tuple[Path, dict[str, Any], dict[str, Any]], tmp_path: Path
) -> None:
    root, content, key = page
    order = {name: i for i, name in enumerate(CANDIDATES)}

    def fair(c: dict[str, Any]) -> str:
        row = key["comparisons"][c["id"]]
        return "left" if order[row["left"]] > order[row["right"]] else "right"

    one = vote_file(content, tmp_path / "one.json", "Ann", fair)
    two = vote_file(content, tmp_path / "two.json", "", fair)
    contrary = vote_file(content, tmp_path / "three.json", "Contrary", lambda c: "neither")
    done = score(root, str(one), str(two), str(contrary), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [r["candidate"] for r in found["ratings"]] == ["oak-merged", "oak-tuned", "oak-base"]
    assert found["testers"]["Ann"] == {"votes": 14, "equal": 0.5}
    assert found["testers"]["Contrary"]["equal"] == 0.0 and "two" in found["testers"]
    assert found["neither_good"] == 14
    assert found["correlations"] == [
        {"measure": "talk: loss, bits_per_byte", "candidates": 3, "spearman": -1.0, "kendall": -1.0}
    ]
    text = score(root, str(one), str(two), str(contrary))
    assert text.returncode == 0, text.stderr
    assert text.stdout == score(root, str(one), str(two), str(contrary)).stdout
    assert "oak-merged" in text.stdout and "Krippendorff" in text.stdout and "-1.00" in text.stdout


def test_comments_cannot_write_to_the_terminal(
    page: tuple[Path, dict[str, Any], dict[str, Any]], tmp_path: Path
) -> None:
    root, content, _ = page
    first = content["comparisons"][0]["id"]
    votes = {first: {"choice": "left", "comment": "fine \x1b[31m red\x07"}}
    path = tmp_path / "v.json"
    path.write_text(json.dumps({"test": content["test"], "tester": "Bo\x1b[2J", "votes": votes}))
    done = score(root, str(path), "--comments")
    assert done.returncode == 0, done.stderr
    assert "red" in done.stdout and "\x1b" not in done.stdout and "\x07" not in done.stdout


WRONG = {
    "no file": (None, "No such file"),
    "no json": ("{", "no file of votes"),
    "other page": ('{"test": "0123", "tester": "A", "votes": {}}', "votes on page 0123; no key of it among"),
    "no votes": ('{"test": TEST, "tester": "A", "votes": {}}', "no votes in these files"),
    "unknown choice": (
        '{"test": TEST, "tester": "A", "votes": {"x": {"choice": "best", "comment": ""}}}',
        "votes.x.choice: .*'best'|votes.x.choice: .*\"best\"",
    ),
    "unknown comparison": (
        '{"test": TEST, "tester": "A", "votes": {"x": {"choice": "left", "comment": ""}}}',
        "found 'x', which is no comparison of this page",
    ),
}


@pytest.mark.parametrize("case", sorted(WRONG))
def test_bad_votes_end_in_one_line(
    page: tuple[Path, dict[str, Any], dict[str, Any]], tmp_path: Path, case: str
) -> None:
    root, content, _ = page
    text, pattern = WRONG[case]
    path = tmp_path / "votes.json"
    if text is not None:
        path.write_text(text.replace("TEST", json.dumps(content["test"])))
    done = score(root, str(path))
    assert done.returncode == 1 and done.stdout == ""
    assert re.search(pattern, done.stderr), done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_two_files_of_one_tester_are_refused(page: tuple[Path, dict[str, Any], dict[str, Any]], tmp_path: Path) -> None:
    root, content, _ = page
    one, two = (vote_file(content, tmp_path / f"{n}.json", "Ann", lambda c: "left") for n in "ab")
    done = score(root, str(one), str(two))
    assert done.returncode == 1
    assert "tester 'Ann' voted in" in done.stderr and "latest file" in done.stderr
