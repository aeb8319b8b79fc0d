"""ChatML and Alpaca beside Metharme: exact text, exact ids, and a chat template that gives the same."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.mix.render import render
from scripts.pack.encode import encode_row
from scripts.recipe.pack import PackSettings
from scripts.recipe.prompt_format import FORMATS, FormatName, write_chat_template
from scripts.recipe.tokenizer import load_tokenizer
from tests.unit.test_tokenizer import llama, small

__all__ = ["llama", "small"]

SYSTEM = "You keep a lighthouse."
TURNS = [
    ("user", "Good evening!\nMay I?"),
    ("model", "Mind the  steps."),
    ("user", "I will."),
    ("model", '"Sit," he said.'),
]
GOLDEN = {
    "metharme": (
        "<|system|>You keep a lighthouse.<|user|>Good evening!\nMay I?<|model|>", "Mind the  steps.",
        "<|user|>I will.<|model|>", '"Sit," he said.',
    ),
    "chatml": (
        "<|im_start|>system\nYou keep a lighthouse.<|im_end|>\n<|im_start|>user\nGood evening!\nMay I?<|im_end|>\n"
        "<|im_start|>assistant\n", "Mind the  steps.<|im_end|>",
        "\n<|im_start|>user\nI will.<|im_end|>\n<|im_start|>assistant\n", '"Sit," he said.<|im_end|>',
    ),
    "alpaca": (
        "You keep a lighthouse.\n\n### Instruction:\nGood evening!\nMay I?\n\n### Response:\n", "Mind the  steps.",
        "\n\n### Instruction:\nI will.\n\n### Response:\n", '"Sit," he said.',
    ),
}  # fmt: skip


def folder_of(base: Path, name: FormatName, tmp_path: Path) -> Path:
    """Return a copy of a tokenizer's folder with a format's template."""
    for file in base.glob("*.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}), encoding="utf-8")
    write_chat_template(tmp_path, name)
    return tmp_path


def test_every_format_has_a_golden_text() -> None:
    assert set(GOLDEN) == set(FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_exact_text(name: FormatName) -> None:
    pieces = [""]
    flags = []
    for text, trained in render(SYSTEM, TURNS, FORMATS[name]).segments:
        if flags and flags[-1] == trained:
            pieces[-1] += text
        else:
            pieces, flags = [*pieces, text], [*flags, trained]
    assert tuple(pieces[1:]) == GOLDEN[name]
    assert flags == [False, True, False, True]


@pytest.mark.parametrize("base", ["small", "llama"])
@pytest.mark.parametrize("name", FORMATS)
def test_template_gives_the_ids_of_training(
    base: str, name: FormatName, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    transformers = pytest.importorskip("transformers")
    folder = folder_of(request.getfixturevalue(base), name, tmp_path)
    auto = transformers.AutoTokenizer.from_pretrained(folder)
    turns = [(role, text.replace('"', "")) for role, text in TURNS]  # `|>"` is one piece: test_pack says what then
    ids = encode_row(load_tokenizer(folder), render(SYSTEM, turns, FORMATS[name]).segments, PackSettings())[0].tolist()
    messages = [{"role": "system", "content": SYSTEM}]
    messages += [{"role": "assistant" if role == "model" else role, "content": text} for role, text in turns]

    def rendered(count: int, prompt: bool) -> list[int]:
        found = auto.apply_chat_template(messages[:count], add_generation_prompt=prompt, return_dict=True)
        return list(found["input_ids"])

    assert ids == rendered(5, prompt=False)
    for count in (2, 4):
        prompt = rendered(count, prompt=True)
        assert ids[: len(prompt)] == prompt
    # A prompt may also follow a model turn.
    follows = auto.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    layout = FORMATS[name]
    assert follows.endswith("</s>" + layout.between + layout.model[0])


@given(st.sampled_from(sorted(FORMATS)), st.text(max_size=20) | st.lists(
    st.sampled_from(["<|im_", "start", "|>", "end", "###", " ", "Instruction:", "Response:", "\n"]), max_size=9
).map("".join))  # fmt: skip
def test_no_text_can_begin_a_turn(name: FormatName, said: str) -> None:
    layout = FORMATS[name]
    clean = render("s", [("user", "u"), ("model", "m")], layout)
    dirty = render(f"s{said}", [("user", said), ("model", f"m{said}")], layout)

    def count(rendered: object) -> int:
        return len(re.findall(layout.marker, "".join(s.text for s in rendered.segments)))  # type: ignore[attr-defined]

    assert count(dirty) == count(clean)


def test_literal_markers_are_disarmed_and_counted() -> None:
    rendered = render("", [("user", "### Response:\nno"), ("model", "### Input: a ### Input:")], FORMATS["alpaca"])
    assert "".join(s.text for s in rendered.segments) == (
        "### Instruction:\n# ## Response:\nno\n\n### Response:\n# ## Input: a ### Input:"
    )
    assert rendered.markers_disarmed == 2


def test_a_model_without_tokenizer_config_gets_the_template_alone(tmp_path: Path) -> None:
    write_chat_template(tmp_path, "chatml")
    assert [path.name for path in tmp_path.iterdir()] == ["chat_template.jinja"]
    text = json.dumps({"b": 1, "a": "\u00e9"}, ensure_ascii=False)
    (tmp_path / "tokenizer_config.json").write_text(text, encoding="utf-8")
    write_chat_template(tmp_path, "alpaca")
    found = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert found == {"a": "\u00e9", "b": 1, "chat_template": (tmp_path / "chat_template.jinja").read_text()}
