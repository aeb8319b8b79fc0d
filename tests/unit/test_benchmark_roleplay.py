"""Judge-free role-play measures: of hand-made replies, and on a tiny model from mixture to files."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from scripts.artifact.stage import Job, StageError
from scripts.benchmark import dialogue
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
from scripts.benchmark.generate import converse
from scripts.benchmark.heldout import Row, bits_per_byte, bootstrap_intervals
from scripts.benchmark.replies import Dialogue, Reply, distinct, loops, measure
from scripts.benchmark.rows import END, read_rows
from scripts.benchmark.work import prepare
from scripts.recipe.benchmark import BenchmarkSpec, Task
from scripts.recipe.models import Suite
from scripts.recipe.prompt_format import FORMATS, FormatName
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
    (root / "mix" / "mix.json").write_text('{"format": "metharme"}')
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
            ids[:, 0] = tokenizer.bos_token_id  # a cut context keeps its first token
            with torch.no_grad():
                new = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12)
            written = new[0, ids.shape[1] :]
            expected = tokenizer.decode(written[written != tokenizer.eos_token_id])
            assert reply["text"] == expected and reply["end"] in ("length", "eos")
            history += reply["text"] + "</s>"  # as the chat template renders a conversation
    assert found.num_rows == 3


def test_next_turn_items_are_fair(inputs: dict[str, Path]) -> None:
    task, mixes = TASKS["turn"], {"one": inputs["mix/one"], "again": inputs["mix/one"]}
    found = read_conversations("turn", task, mixes, "validation")
    assert len(found) == 5  # a row of two mixtures counts once
    items = list(next_turns(found))
    assert len(items) == 5 and {item.gold for item in items} == {0, 1}
    for item, mine in zip(items, found, strict=True):
        assert item.context.endswith("<|model|>") and mine.written(1).startswith(item.choices[item.gold])
        other = item.choices[1 - item.gold]
        assert {c.source for c in found if any(t.startswith(other) for t in c.texts)} == {mine.source}
        assert 40 <= len(item.choices[0]) == len(item.choices[1]) <= 400
        assert END in item.context and END not in "".join(item.choices)
    # Another order or another conversation changes no item.
    assert {i.context + "".join(i.choices) for i in next_turns(found[::-1])} == {
        i.context + "".join(i.choices) for i in items
    }
    assert list(next_turns(found[:1])) == []


def test_the_other_turn_is_another_characters_where_there_is_one() -> None:
    def said(name: str, persona: str, greeting: str, source: str = "tales") -> Conversation:
        begin = f"<|system|>Template {name}. {persona * 5}"
        texts = (begin, greeting, "<|user|>Hello.<|model|>", f"I am {name}, and this is what I have to tell you.")
        return Conversation(source, name, texts, (1, 3))

    fox = said("fox", "You are a sly fox, red and quick. ", "Yip.")
    owls = [said(f"owl {i}", "You are an old owl. ", f"Hoo {i}.") for i in range(12)]
    elves = [said(f"elf {i}", f"You are an elf, number {i}. ", "Well met.") for i in range(12)]
    for alike in (owls, elves):
        items = list(next_turns([*alike, fox]))
        assert len(items) == 13
        false = [item.choices[1 - item.gold] for item in items[:12]]
        assert all(fox.written(1).startswith(text) for text in false), false
        assert len(list(next_turns(alike))) == 12  # one character only: another conversation's turn


def test_refusal_margin_is_a_ratio_of_mean_probabilities(inputs: dict[str, Path]) -> None:
    item = next(refusals(read_conversations("r", TASKS["refusal"], {"one": inputs["mix/one"]}, "validation")))
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
    assert (
        measure([Dialogue("<|user|>Al: Bye. Also", (Reply("Al: <i>Oh</i> she <smiles>", "eos"),))])["artefacts"][0] == 0
    )
    also = [Dialogue("Al: Bye.", (bad,)), Dialogue("Also me.", (Reply("Al: Yes.", "eos"),))]
    assert measure(also)["leaked_names"][0] == pytest.approx(0.5)  # a part of a word is no name
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
    assert found["repeated_4grams"] == pytest.approx(3 / 5)  # a single reply can't repeat another one
    assert "repeated_4grams" not in measure(dialogues[1:])
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
        ("'" * 60, True),
        ("'" * 15, False),
        ("\u65e5\u672c" * 20, True),
        ("one two three four five six seven eight " * 4, True),
        ("x'y'z'" * 19 + "'a" * 18 + "\n" * 2000, False),
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


def test_what_another_mixture_trains_on_is_no_held_out_row(tmp_path: Path) -> None:
    """Two sizes of the held-out part, or `file_tail` beside `hash`."""
    for name, train, held in (("small", ["a", "b#2", "c", "d"], ["e"]), ("large", ["c#1x"], ["a", "b", "d#x", "e"])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mix.json").write_text('{"format": "metharme"}')
        for split, names in (("train", train), ("validation", held)):
            rows = [{**conversation(0, "tales"), "id": i} for i in names]
            pq.write_table(pa.Table.from_pylist(rows), tmp_path / name / f"{split}.parquet")
    mixes = {name: tmp_path / name for name in ("small", "large")}
    assert [row.id for row in read_rows(mixes, "validation")] == ["e", "d#x", "e"]
    assert [row.id for row in read_rows({"large": mixes["large"]}, "validation")] == ["a", "b", "d#x", "e"]


def test_a_format_with_marks_behind_its_turns_leaves_none_in_what_is_measured(tmp_path: Path) -> None:
    turns = [("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", False), ("Hello.<|im_end|>", True)]
    row = {"id": "c", "source": "s", "segments": [{"text": t, "trained": m} for t, m in turns]}
    (tmp_path / "mix.json").write_text('{"format": "chatml"}')
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "validation.parquet")
    (found,) = read_conversations("t", TASKS["replies"], {"one": tmp_path}, "validation")
    assert found.written(0) == "Hello." and found.texts[1] == f"Hello.<|im_end|>{END}"


class Typist:
    """Stands for a model that writes one text, a character a token."""

    eot_token_id, max_length, device = 0, 4000, torch.device("cpu")

    def __init__(self, text: str) -> None:
        self.fed, self.said, self.model = "", iter(map(ord, text)), self
        self.base_model = lambda **_: self
        self.last_hidden_state = torch.zeros(1, 1, 1)

    def get_output_embeddings(self) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda _: torch.nn.functional.one_hot(torch.tensor([next(self.said)]), 256).float()

    def use_bos(self, bos: bool) -> None:
        assert bos

    def tok_encode(self, text: str) -> list[int]:
        self.fed = text
        return [1, *range(2, len(text) + 2)]

    def tok_decode(self, tokens: list[int], skip_special_tokens: bool) -> str:
        assert not skip_special_tokens
        return "".join(map(chr, tokens))


@pytest.mark.parametrize(
    ("name", "written", "text", "end"),
    [
        ("metharme", "Yes.\0", "Yes.", "eos"),
        ("metharme", "Yes.<|user|>And", "Yes.", "user"),
        ("chatml", "Yes.<|im_end|>\0", "Yes.", "eos"),
        ("chatml", "Yes.<|im_end|>\n<|im_start|>user\nAnd", "Yes.", "user"),
        ("alpaca", "Yes.\n\n### Instruction:\nAnd", "Yes.\n\n", "user"),
    ],
)
def test_the_formats_own_marks_end_a_reply(name: FormatName, written: str, text: str, end: str) -> None:
    model: Any = Typist(written + "\0")
    talk = Conversation("s", "c", ("ask", f"x{END}", "more", f"y{END}"), (1, 3), name)
    assert converse(model, talk, 1, 90).replies == (Reply(text, end),)
    model.said = iter(map(ord, f"Yes.{FORMATS[name].model[1]}\0No.\0"))
    converse(model, talk, 2, 90)
    assert model.fed == f"askYes.{FORMATS[name].model[1]}{END}more", "as training saw it"


def test_a_context_without_room_for_a_reply_is_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(StageError, match="max_new_tokens 12 leaves no room .* max_length 13"):
        model: Any = Typist("")
        model.max_length = 13
        converse(model, Conversation("s", "c", ("ask", "x"), (1,)), 1, 12)


def test_thousands_of_conversations_take_no_square_of_time() -> None:
    """A second for what took 110 s: the pairs are drawn along one order, not searched in all."""
    alike = [
        Conversation("s", f"{n}", ("<|user|>Tell.<|model|>", f"Number {n}: all is well in the harbour tonight."), (1,))
        for n in range(4000)
    ]
    calls = 0

    def counted(one: str, other: str) -> int:
        nonlocal calls
        calls += 1
        return cut(one, other)

    cut = dialogue._cut
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dialogue, "_cut", counted)
        assert len(list(next_turns(alike))) == 4000
    assert calls < 3 * 4000
