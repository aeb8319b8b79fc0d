"""Near-duplicates: recall on planted pairs, exactness beside brute force, and independence of order."""

import itertools
import os
import random
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.recipe.minhash import BANDS, ROWS, SHINGLE_WORDS
from scripts.recipe.near import Duplicate, NearDuplicates
from scripts.recipe.words import Words
from tests.conftest import ROOT
from tests.unit.clean_tools import jsonl, run

SHAREGPT = {"adapter": "sharegpt"}


def near(folder: Path, rows: dict[str, str], threshold: float = 0.8, seed: int = 7) -> dict[str, Duplicate]:
    with NearDuplicates(folder / "shingles", seed, threshold) as found:
        for name, text in rows.items():
            found.add(name, text)
        result = found.found()
    assert not (folder / "shingles").exists(), "its file goes with it"
    return result


def shingles(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    size = min(SHINGLE_WORDS, len(words))
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}


def jaccard(a: str, b: str) -> float:
    return len(shingles(a) & shingles(b)) / len(shingles(a) | shingles(b))


def sentence(rng: random.Random, words: int) -> list[str]:
    return [f"w{rng.randrange(5000)}" for _ in range(words)]


def planted(rng: random.Random, words: int, changed: int) -> tuple[str, str]:
    """Return a text and a copy with `changed` words replaced, more than five words apart."""
    text = sentence(rng, words)
    copy = list(text)
    for k in range(changed):
        copy[5 + k * (words - 10) // changed] = f"new{rng.randrange(10**6)}"
    return " ".join(text), " ".join(copy)


def test_recall_and_precision_on_planted_pairs(tmp_path: Path) -> None:
    """1,000 pairs barely above the threshold, of which 97.7 % are expected, and 1,000 below it: none of them."""
    rng = random.Random(1)
    rows, above, below = {}, [], []
    for i in range(1000):
        for kind, changed, pairs in (("a", 4, above), ("b", 6, below)):
            one, two = planted(rng, 190, changed)
            rows[f"{kind}{i}"], rows[f"{kind}{i}'"] = one, two
            pairs.append(jaccard(one, two))
    assert min(above) >= 0.80 and max(above) < 0.82 and max(below) < 0.75
    found = near(tmp_path, rows)
    assert {name[0] for name in found} == {"a"}
    expected = 1 - (1 - 0.805**ROWS) ** BANDS
    assert expected > 0.97 and len(found) / 1000 == pytest.approx(expected, abs=0.02)
    assert all(d.similarity == pytest.approx(jaccard(rows[n], rows[d.kept]), abs=1e-12) for n, d in found.items())


TEXTS = st.lists(
    st.lists(st.sampled_from(["ash", "birch", "cedar", "elm"]), min_size=1, max_size=9).map(" ".join),
    min_size=2,
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(texts=TEXTS, threshold=st.sampled_from([0.7, 0.8, 1.0]), seed=st.integers(0, 3), order=st.randoms())
def test_equals_brute_force_where_bands_are_certain(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], threshold: float, seed: int, order: random.Random
) -> None:
    """Found clusters refine the brute-force ones and hold every pair of equal sets; any order gives the same."""
    rows = {f"r{i}": text for i, text in enumerate(texts)}
    folder = tmp_path_factory.mktemp("near")
    found = near(folder, rows, threshold, seed)
    names = list(rows)
    order.shuffle(names)
    assert near(folder, {name: rows[name] for name in names}, threshold, seed) == found
    cluster = {name: {name} for name in rows}
    for a, b in itertools.combinations(rows, 2):
        if jaccard(rows[a], rows[b]) >= threshold and cluster[a] is not cluster[b]:
            joined = cluster[a] | cluster[b]
            cluster.update(dict.fromkeys(joined, joined))
    for name, twin in found.items():
        assert twin.kept in cluster[name] and twin.kept not in found
        assert len(shingles(rows[twin.kept])) > 0 and len(rows[twin.kept].split()) >= len(rows[name].split())
    for a, b in itertools.combinations(rows, 2):
        if shingles(rows[a]) == shingles(rows[b]):
            assert a in found or b in found, "equal sets share every band"


def test_chains_are_closed_and_the_longest_stays(tmp_path: Path) -> None:
    words = [f"w{i}" for i in range(200)]
    rows = {f"r{k}": " ".join(words[: 200 - 12 * k]) for k in range(6)}  # each like the next, the ends not alike
    found = near(tmp_path, rows)
    assert set(found) == {"r1", "r2", "r3", "r4", "r5"} and {twin.kept for twin in found.values()} == {"r0"}
    assert found["r1"].similarity > 0.9 and found["r5"].similarity == pytest.approx(136 / 196)
    assert "r5" not in near(tmp_path, {name: rows[name] for name in ("r0", "r5")})


def test_ties_are_decided_by_the_id_and_the_seed(tmp_path: Path) -> None:
    rows = dict.fromkeys("abcdefgh", "the same seven words stand here again")
    kept = set()
    for seed in range(8):
        found = near(tmp_path, rows, seed=seed)
        assert len(found) == 7 and len({twin.kept for twin in found.values()}) == 1
        kept.add(found.popitem()[1].kept)
    assert len(kept) > 1


def test_rows_without_words_and_single_rows(tmp_path: Path) -> None:
    assert near(tmp_path, {}) == near(tmp_path, {"a": "one two three"}) == {}
    assert near(tmp_path, {"a": "?!", "b": "?!", "c": "..."}) == {}
    assert set(near(tmp_path, {"a": "Yes.", "b": "yes"})) in ({"a"}, {"b"})
    assert near(tmp_path, {"a": "one two", "b": "one two three", "c": "two"}) == {}


def test_a_large_family_of_equal_rows_is_one_cluster(tmp_path: Path) -> None:
    rows = {f"r{i:04}": "a template that a machine wrote three thousand times" for i in range(3000)}
    assert len(near(tmp_path, rows)) == 2999


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Don't  STOP\u2026", "don\u2019t stop"),
        ("\u201cYes,\u201d she said\u2014twice", '"yes" she said, twice'),
        ("\u00c9TUDE na\u00efve", "\u00e9tude NA\u00cfVE"),
        ("caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9")),
        (
            "\u041f\u0440\u0438\u0432\u0435\u0442, \u041c\u0438\u0440",
            "\u043f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440",
        ),
        ("one\u200b two\U0001f600", "one two"),
        ("< |user|>hi", "user hi"),
    ],
)
def test_what_is_the_same_word(a: str, b: str) -> None:
    words = Words(3)
    assert np.array_equal(words.of(a).copy(), words.of(b))


def test_what_is_another_word() -> None:
    words = Words(3)
    counts = {
        "": 0,
        "a b": 2,
        "\u4f60\u597d\u4e16\u754c": 4,
        "a\u4f60b": 3,
        "3.14": 2,
        "x\u00d7y": 2,
        "\u00df ss": 2,
        "co-op": 2,
    }
    assert {text: len(words.of(text)) for text in counts} == counts
    assert len({int(words.of(w)[0]) for w in ("a", "b", "1", "\u00df", "ss", "\u00e9", "e", "\u4f60")}) == 8
    assert int(Words(4).of("a")[0]) != int(words.of("a")[0]), "the key counts"


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=80))
def test_any_text_splits_like_the_slow_rule(text: str) -> None:
    """Words are found where a plain walk over characters finds them, for every alphabet."""
    folded = unicodedata.normalize("NFC", text.lower()).encode("utf-8", "replace").decode()
    expected, word = 0, False
    for char in folded:
        size, code = len(char.encode()), ord(char)
        nothing = char in "'\u2018\u2019" or 0x200B <= code <= 0x200F
        alone = size == 3 and code >= 0x3040 and code < 0xF000
        letter = alone or (char.isalnum() if size == 1 else size == 2 and code >= 0xC0 and char not in "\u00d7\u00f7")
        letter = letter or (size == 3 and code < 0x2000)
        if nothing:
            continue
        expected += (word and (alone or not letter)) + alone
        word = letter and not alone
    assert len(Words(1).of(text)) == expected + word


def test_the_stage_refuses_near_duplicates_with_the_kept_id(tmp_path: Path) -> None:
    rng = random.Random(3)
    texts = [" ".join(sentence(rng, 120)) for _ in range(20)]
    rows = [{"conversations": [{"from": "human", "value": "Go on"}, {"from": "gpt", "value": t}]} for t in texts]
    copies = [
        {"conversations": [{"from": "human", "value": "GO ON!"}, {"from": "gpt", "value": f"{t} and so on"}]}
        for t in texts[:5]
    ]
    result = run(tmp_path / "a", SHAREGPT, {"a.jsonl": jsonl(*rows, *copies)}, languages=None)  # invented words
    assert result.audit["rejected"] == {"near_duplicate": 5}
    assert sorted(row["line"] for row in result.rejected) == [1, 2, 3, 4, 5], "the longer copies stay"
    ids = {row["id"] for row in result.rows}
    for row in result.rejected:
        assert row["detail"].split("kept: ")[1].split(",")[0] in ids
    mixed = [*copies, *rows]
    rng.shuffle(mixed)
    other = run(tmp_path / "b", SHAREGPT, {"a.jsonl": jsonl(*mixed)}, languages=None)
    assert other.rows == result.rows
    all_of_them = run(tmp_path / "c", SHAREGPT, {"a.jsonl": jsonl(*mixed)}, languages=None, near_duplicates=None)
    assert len(all_of_them.rows) == 25


@pytest.mark.slow
def test_threads_and_hash_seeds_change_nothing(tmp_path: Path) -> None:
    code = (
        "import random, sys, pathlib; from scripts.recipe.near import NearDuplicates\n"
        "rng = random.Random(5)\n"
        "with NearDuplicates(pathlib.Path(sys.argv[1]), 7, 0.8) as near:\n"
        "    for i in range(200): near.add(f'r{i}', ' '.join(rng.choice('abcd') * 3 for _ in range(9)))\n"
        "    print(sorted(near.found().items()))"
    )
    outputs = set()
    for threads in ("1", "4"):
        env = {**os.environ, "OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
        command = [sys.executable, "-c", code, str(tmp_path / threads)]
        outputs.add(subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True, text=True).stdout)
    assert len(outputs) == 1 and "Duplicate" in outputs.pop()
