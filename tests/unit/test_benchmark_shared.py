"""The continuation-sharing scorer against lm-eval's own HFLM, and its bits in any order."""

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from scripts.artifact.stage import StageError
from scripts.benchmark.model import Model, Pair
from scripts.benchmark.tree import common_prefix, group_items, grow, make_request, sharable
from tests import benchmark_prompts
from tests.bench.bench_scorer import compare
from tests.benchmark_prompts import REAL
from tests.unit.benchmark_tiny_model import write_model

SETTINGS: dict[str, Any] = {
    "backend": "causal", "device": "cpu", "dtype": "float32", "softmax_dtype": "float32", "batch_size": 3,
    "max_length": 96, "add_bos_token": True,
}  # fmt: skip
SHOTS = "Question: Where does the green boat sail?\nAnswer: It sails to the harbour at night.\n\n"
PASSAGE = "The baker opened the shop. " * 12
ITEMS: dict[str, list[list[Pair]]] = {
    "one-token choices": [
        [(f"{SHOTS}Question: What is {n} plus 2?\nAnswer:", f" {c}") for c in "3456"] for n in range(7)
    ],
    "tied": [[("Question: Who?\nAnswer:", c) for c in (" Mira", " Pip", " Mira")]],
    "shared beginnings": [
        [("Where was it?\nAnswer:", f" in the green {c}") for c in ("garden", "garden gate", "house", "house by sea")],
        [("Where is it?\nAnswer:", c) for c in (" on a hill", " on", " on a hill near the sea", " at")],
    ],
    "empty context": [[("", "A pear is a fruit."), ("", "A stone.")], [("", "<s> one word"), ("", "one")]],
    "spaces moved": [
        [("The boat is ", "blue"), ("The boat is ", "red")],
        [("Go on\n\n ", "now"), ("Go on\n\n ", "never")],
    ],
    "over the limit": [
        [("The boat went on and on. " * 30, " blue"), ("The boat went on and on. " * 30, " and very far away")],
        [("Only this one fits.", " yes"), ("Only this one fits.", " no, it does not")],
    ],
    "cut for some choices only": [[("word " * 90, " a"), ("word " * 90, " a long way behind the hills of the north")]],
    "two contexts, one ending": [[(f"The key was in {w}", " because it was small.") for w in ("the box", "a boat")]],
    "passages": [
        [(f"{PASSAGE}Q: {q}\nA:", f" {c}") for c in ("bread", "tea", "a key")] for q in ("Who?", "What?", "When?")
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def ours(folder: Path) -> Model:
    return Model(pretrained=str(folder), **SETTINGS)


@pytest.fixture(scope="module")
def peer(folder: Path) -> Any:
    return HFLM(pretrained=str(folder), **SETTINGS)


def instances(items: list[list[Pair]]) -> list[Any]:
    """Return lm-eval's requests of the items of one task."""
    return [
        Instance("loglikelihood", {}, pair, n, ("task", number, 1))
        for number, item in enumerate(items)
        for n, pair in enumerate(item)
    ]


def pick(values: list[float]) -> int:
    return values.index(max(values))


@pytest.mark.parametrize("case", ITEMS)
@pytest.mark.parametrize("bos", [True, False])
def test_scores_are_those_of_hflm(ours: Model, peer: Any, case: str, bos: bool) -> None:
    ours.use_bos(bos)
    peer.add_bos_token = bos
    items = ITEMS[case]
    expected = peer.loglikelihood(instances(items), disable_tqdm=True)
    found = ours.loglikelihood(instances(items))
    assert [ll for ll, _ in found] == pytest.approx([ll for ll, _ in expected], abs=1e-4)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    for item in items:
        mine, theirs = found[: len(item)], expected[: len(item)]
        found, expected = found[len(item) :], expected[len(item) :]
        assert pick([ll for ll, _ in mine]) == pick([ll for ll, _ in theirs])


def test_tied_choices_tie_to_the_bit(ours: Model) -> None:
    first, _, third = ours.score_items(ITEMS["tied"])[0]
    assert first == third


def test_what_is_cut_on_the_left_is_counted(folder: Path) -> None:
    model = Model(pretrained=str(folder), **SETTINGS)
    model.score_items(ITEMS["over the limit"])
    assert model.truncated == 2


@pytest.mark.parametrize("continuation", ["", " word" * 200])
def test_continuations_without_tokens_or_with_too_many_are_refused(ours: Model, continuation: str) -> None:
    # HFLM only asserts here; 0.0 for an empty one would win every argmax.
    with pytest.raises(StageError, match="a continuation has"):
        ours.score_items([[("A boat.", continuation), ("A boat.", " yes")]])


def test_rolling_likelihood_is_that_of_hflm(ours: Model, peer: Any) -> None:
    texts = ["One.", "The boat went on and on. " * 40, "é 梨 and pears", "word " * 95, "<s> begins with a marker"]
    requests = [Instance("loglikelihood_rolling", {}, (text,), 0, ("task", n, 1)) for n, text in enumerate(texts)]
    for model in (ours, peer):
        model.add_bos_token = False
    expected = peer.loglikelihood_rolling(requests, disable_tqdm=True)
    assert ours.loglikelihood_rolling(requests) == pytest.approx(expected, abs=1e-3, rel=1e-6)
    # The windows of a text of 3 windows count, not only the last.
    assert expected[1] < 3 * expected[0]


def test_tokens_may_be_scored_directly_as_hflm_does(ours: Model, peer: Any) -> None:
    requests = [(("a", "b"), [1, 5, 9, 40], [7, 8]), (("a", "c"), [1, 5, 9, 40], [9]), (("d", "e"), [1, 30], [4])]
    found, expected = (model._loglikelihood_tokens(requests, disable_tqdm=True) for model in (ours, peer))
    assert [ll for ll, _ in found] == pytest.approx([ll for ll, _ in expected], abs=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bits_do_not_depend_on_order_or_on_what_else_is_scored(folder: Path, dtype: str) -> None:
    model = Model(pretrained=str(folder), **{**SETTINGS, "dtype": dtype})
    items = [*ITEMS["one-token choices"], *ITEMS["shared beginnings"], *ITEMS["passages"], *ITEMS["over the limit"]]
    groups = group_items([item[0][0] for item in items], 3)
    whole = model.score_items(items)
    order = random.Random(3).sample(groups, len(groups))
    found = {i: scores for group in order for i, scores in zip(group, model.score_items(items, [group]), strict=True)}
    assert [found[i] for i in range(len(items))] == whole
    assert [i for group in groups for i in group] == list(range(len(items)))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=6), st.lists(st.integers(0, 2), min_size=1,
    max_size=6)), min_size=1, max_size=4), st.integers(6, 12))  # fmt: skip
def test_a_tree_holds_every_request_and_nothing_twice(pairs: list[tuple[list[int], list[int]]], limit: int) -> None:
    requests = [make_request(context, continuation, limit) for context, continuation in pairs]
    start = sharable(requests)
    tree = grow(requests, start)
    paths = set()
    for node in range(len(tree.tokens)):
        path, at = [], node
        while at >= 0:
            path.append(tree.tokens[at])
            at = tree.parents[at]
        assert tree.depths[node] == start + len(path) - 1
        paths.add(tuple(reversed(path)))
    assert len(paths) == len(tree.tokens)
    assert paths == {r.tokens[start:end] for r in requests for end in range(start + 1, len(r.tokens) + 1)}
    for request, (context, continuation), wanted in zip(requests, pairs, tree.wanted, strict=True):
        assert [*request.tokens, continuation[-1]] == [*context, *continuation][-limit - 1 :]
        assert [target for _, target in wanted] == continuation
        assert [tree.depths[node] for node, _ in wanted] == list(range(request.begin, len(request.tokens)))


@settings(deadline=None)
@given(st.lists(st.text("ab", max_size=5), min_size=1, max_size=6))
def test_common_prefix_is_the_longest(texts: list[str]) -> None:
    size = common_prefix(texts)
    assert len({text[:size] for text in texts}) == 1
    assert any(len(text) == size for text in texts) or len({text[: size + 1] for text in texts}) > 1


@settings(deadline=None)
@given(st.lists(st.sampled_from(["x", "y" * 300 + "1", "y" * 300 + "2", "z" * 400]), max_size=30), st.integers(1, 5))
def test_groups_cover_all_items_in_order_and_none_is_too_large(texts: list[str], size: int) -> None:
    groups = group_items(texts, size)
    assert [i for group in groups for i in group] == list(range(len(texts)))
    assert all(1 <= len(group) <= size for group in groups)


def test_groups_follow_passages() -> None:
    long = ["a" * 300 + str(n) for n in range(5)] + ["b" * 300 + str(n) for n in range(3)] + ["c", "d"]
    assert group_items(long, 4) == [range(4), range(4, 5), range(5, 8), range(8, 10)]


@pytest.mark.parametrize("task", ["arc", "sat_en", "mmlu", "hellaswag_shaped"])
def test_real_items_get_the_likelihoods_and_picks_of_hflm(task: str, tmp_path: Path) -> None:
    if not (REAL / "benchmarks").is_dir():
        pytest.skip(f"{REAL} holds no benchmarks; set ATELIER_REAL_DATA")
    model = write_model(tmp_path / "tiny", positions=2048)
    settings = {**SETTINGS, "max_length": 2048, "batch_size": 2}
    items = getattr(benchmark_prompts, task)(3)
    expected = HFLM(pretrained=str(model), **settings).loglikelihood(instances(items), disable_tqdm=True)
    found = Model(pretrained=str(model), **settings).loglikelihood(instances(items))
    assert [ll for ll, _ in found] == pytest.approx([ll for ll, _ in expected], abs=1e-4)
    while found:
        size = len(items.pop(0))
        assert pick([ll for ll, _ in found[:size]]) == pick([ll for ll, _ in expected[:size]])
        found, expected = found[size:], expected[size:]


@pytest.mark.slow
def test_the_gpu_bench_runs_in_small_without_a_gpu() -> None:
    if not (REAL / "llama2_tokenizer.model").is_file():
        pytest.skip(f"{REAL} holds no llama2_tokenizer.model; set ATELIER_REAL_DATA")
    found = compare("toy", "float32", {"mmlu": 2})["mmlu"]
    assert found["different"] == 0 and found["furthest"] < 1e-4


def test_a_context_of_spaces_without_bos_is_refused(ours: Model) -> None:
    ours.use_bos(False)
    with pytest.raises(StageError, match="without BOS nothing would predict"):
        ours.score_items([[("  ", "a"), ("  ", "b")]])
