"""Judge-free role-play measures: of hand-made replies, and on a tiny model from mixture to files."""

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from scripts.artifact.stage import Job, StageError
from scripts.benchmark.build import build
from scripts.benchmark.dialogue import (
    OPENERS,
    REFUSALS,
    Conversation,
    next_turns,
    read_conversations,
    refusal_margin,
    refusals,
)
from scripts.benchmark.heldout import Row, bits_per_byte, bootstrap_intervals
from scripts.benchmark.replies import Dialogue, Reply, distinct, loops, measure
from scripts.benchmark.work import prepare
from scripts.recipe.benchmark import BenchmarkSpec, Task
from scripts.recipe.models import Suite
from tests.conftest import ROOT
from tests.unit.benchmark_tiny_model import write_model

TASKS = {
    "turn": Task(format="next_turn"),
    "refusal": Task(format="refusal", limit=3),
    "replies": Task(format="generation", limit=3, turns=2, max_new_tokens=12),
    "train": Task(format="extraction", split="train", limit=2),
    "held": Task(format="extraction", limit=2),
    "bits": Task(format="bits_per_byte"),
}


def test_the_demo_has_all_role_play_measures_in_small() -> None:
    whole, demo = (
        Suite.model_validate(yaml.safe_load((ROOT / f"config/suites/{name}.yaml").read_text())).tasks
        for name in ("role-play", "demo")
    )
    for name, task in whole.items():
        smaller = {key: getattr(demo[name], key) for key in ("limit", "turns", "max_new_tokens")}
        assert demo[name] == task.model_copy(update=smaller), name


def conversation(n: int, source: str) -> dict[str, object]:
    """Return a row of a mixture of two exchanges, long enough for extraction."""
    turns = [
        ("<|user|>Mira: Who is there?", False), ("<|model|>", False), (f"Pip{n}: Only me. " * 20, True),
        ("<|user|>Come in.", False), ("<|model|>", False), (f"The door number {n} opened slowly. " * 20, True),
    ]  # fmt: skip
    return {"id": f"c{n}", "source": source, "segments": [{"text": t, "trained": m} for t, m in turns]}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("inputs")
    (root / "mix").mkdir()
    for split, numbers in (("validation", range(5)), ("train", range(10, 13))):
        rows = [conversation(n, "tales" if n % 2 else "letters") for n in numbers]
        pq.write_table(pa.Table.from_pylist(rows), root / "mix" / f"{split}.parquet")
    return {"create/tiny": write_model(root / "model"), "mix/one": root / "mix"}


def run(inputs: dict[str, Path], out: Path, **changes: object) -> Path:
    out.mkdir()
    fixed = {"device": "cpu", "dtype": "float32", "batch_size": 2, "mixtures": ["one"], "max_length": 256}
    spec = BenchmarkSpec.model_validate({"model": "tiny", "suite": "rp", "tasks": TASKS, **fixed, **changes})
    build(Job(spec, inputs, out, out / "work", threads=1))
    return out


def test_the_suite_gives_the_same_bytes_in_shards(inputs: dict[str, Path], tmp_path: Path) -> None:
    whole = run(inputs, tmp_path / "whole")
    parts = {f"benchmark/tiny/rp.{k + 1}of2": run(inputs, tmp_path / f"{k}", shards=2, shard=k) for k in range(2)}
    joined = run({"mix/one": inputs["mix/one"], **parts}, tmp_path / "joined", shards=2)
    for name in ("results.json", "samples.parquet", "generations.parquet"):
        assert (joined / name).read_bytes() == (whole / name).read_bytes()
    tasks = json.loads((whole / "results.json").read_text())["tasks"]
    assert tasks["turn"]["metrics"]["acc"]["chance"] == 0.5 and tasks["turn"]["correct"] is not None
    assert tasks["refusal"]["metrics"]["refusal_margin"]["chance"] is None
    assert {"user_turn", "fails_to_stop", "distinct_3", "words/turn_2"} <= set(tasks["replies"]["metrics"])
    assert 0 <= tasks["train"]["metrics"]["extracted"]["value"] <= 1
    bits = tasks["bits"]["metrics"]["bits_per_byte"]
    assert bits["low"] <= bits["value"] <= bits["high"]


def test_replies_are_greedy_and_see_their_own_earlier_replies(inputs: dict[str, Path], tmp_path: Path) -> None:
    found = pq.read_table(run(inputs, tmp_path / "out", tasks={"replies": TASKS["replies"]}) / "generations.parquet")
    folder = inputs["create/tiny"]
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    for row in found.to_pylist():
        history = ""
        for asked, reply in zip(("<|user|>Mira: Who is there?<|model|>", "<|user|>Come in.<|model|>"), row["replies"],
                                strict=True):  # fmt: skip
            history += asked
            ids = tokenizer(history, return_tensors="pt")["input_ids"][:, -244:]
            with torch.no_grad():
                new = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12)
            expected = tokenizer.decode(new[0, ids.shape[1] :], skip_special_tokens=True)
            assert reply["text"] == expected and reply["end"] in ("length", "eos")
            history += reply["text"]
    assert found.num_rows == 3


def test_next_turn_items_are_fair(inputs: dict[str, Path]) -> None:
    task, mixes = TASKS["turn"], {"one": inputs["mix/one"], "again": inputs["mix/one"]}
    found = read_conversations("turn", task, mixes, "validation")
    assert len(found) == 5  # a row of two mixtures counts once
    items = next_turns(found)
    assert len(items) == 5 and {item.gold for item in items} == {0, 1}
    for item, mine in zip(items, found, strict=True):
        assert item.context.endswith("<|model|>") and mine.written(1).startswith(item.choices[item.gold])
        other = item.choices[1 - item.gold]
        assert {c.source for c in found if any(t.startswith(other) for t in c.texts)} == {mine.source}
        assert len(item.choices[0]) == len(item.choices[1]) <= 400
    # Another order or another conversation changes no item.
    assert {i.context + "".join(i.choices) for i in next_turns(found[::-1])} == {
        i.context + "".join(i.choices) for i in items
    }
    assert next_turns(found[:1]) == []


def test_the_other_turn_is_another_characters_where_there_is_one() -> None:
    def said(name: str, persona: str, greeting: str, source: str = "tales") -> Conversation:
        texts = (f"<|system|>Template {name}. {persona * 5}", greeting, "<|user|>Hello.<|model|>", f"I am {name}.")
        return Conversation(source, name, texts, (1, 3))

    fox = said("fox", "You are a sly fox, red and quick. ", "Yip.")
    owls = [said(f"owl {i}", "You are an old owl. ", f"Hoo {i}.") for i in range(12)]
    elves = [said(f"elf {i}", f"You are an elf, number {i}. ", "Well met.") for i in range(12)]
    for alike in (owls, elves):
        items = next_turns([*alike, fox])
        assert len(items) == 13
        false = [item.choices[1 - item.gold] for item in items[:12]]
        assert all("Yip.".startswith(text) or "I am fox.".startswith(text) for text in false), false
        assert len(next_turns(alike)) == 12  # one character only: another conversation's turn


def test_refusal_margin_is_a_ratio_of_mean_probabilities(inputs: dict[str, Path]) -> None:
    item = refusals(read_conversations("r", TASKS["refusal"], {"one": inputs["mix/one"]}, "validation"))[0]
    assert item.choices == (*REFUSALS, *OPENERS)
    assert refusal_margin([-1000.0] * 4 + [-1001.0] * 4, item) == pytest.approx(1.0)
    assert refusal_margin([math.log(p) for p in (0.1, 0.3, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05)], item) == pytest.approx(
        math.log(2)
    )


def test_measures_of_replies_made_by_hand() -> None:
    stuck = Reply("no no no no", "length")
    good = Reply("Mira: The harbour was blue and cold that night.", "eos")
    again = Reply("The harbour was blue and cold once more", "user")
    bad = Reply("As an AI language model I can't.\nZed: hello", "length")
    dialogues = [
        Dialogue("<|user|>\nMira: Hello.", (good, again)),
        Dialogue("<|user|>\nZed: Who?", (stuck,)),
        Dialogue("<|user|>Go on.", (bad,)),
    ]
    found = {name: value for name, (value, _) in measure(dialogues).items()}
    assert found["user_turn"] == pytest.approx(0.5 / 3)
    assert found["fails_to_stop"] == pytest.approx(2 / 3) and found["loops"] == pytest.approx(1 / 3)
    assert found["artefacts"] == pytest.approx(1 / 3)
    assert found["leaked_names"] == pytest.approx(1 / 3)  # Zed speaks where only others know of him
    assert found["repeated_4grams"] == pytest.approx((3 / 5) / 3)
    assert found["words/turn_1"] == pytest.approx((9 + 4 + 9) / 3) and found["words/turn_2"] == 8
    assert distinct(["a b a b"], 2) == pytest.approx(2 / 3) and distinct(["a"], 2) == 0


@pytest.mark.parametrize(
    ("text", "looping"),
    [
        ("and then and then and then and then", True),
        ("ha ha ha ha", True),
        ("He laughed, he laughed, he laughed, he laughed", True),
        ("very very good", False),
        ("one two three one two three", False),
        ("", False),
    ],
)
def test_loops(text: str, looping: bool) -> None:
    assert loops(text) is looping


def test_bootstrap_covers_the_standard_error_and_ignores_other_rows() -> None:
    rows = [Row("a", str(n), "x" * 100) for n in range(400)]
    values = [-100 * (1 + math.sin(n)) for n in range(400)]
    value, error = bits_per_byte(rows, values)["bits_per_byte"]
    low, high = bootstrap_intervals(rows, values)["bits_per_byte"]
    assert error is not None and (high - low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.1) and low < value < high
    more = [*rows, Row("b", "1", "y"), Row("b", "2", "z")]
    assert bootstrap_intervals(more, [*values, -1.0, -3.0])["bits_per_byte/a"] == (low, high)
    assert "bits_per_byte" not in bootstrap_intervals(rows[:1], values[:1])


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (Task(format="generation", file="x"), "remove the key"),
        (Task(format="extraction", expect_items=9), "found 5 items"),
        (Task(format="next_turn", expect_items=9), "found 5 items"),
    ],
)
def test_bad_tasks_end_with_one_message(inputs: dict[str, Path], task: Task, said: str) -> None:
    with pytest.raises(StageError, match=said):
        prepare("t", task, None, {"one": inputs["mix/one"]})
    with pytest.raises(StageError):
        prepare("t", task, None, {})
