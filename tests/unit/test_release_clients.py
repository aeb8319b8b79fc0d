"""One conversation through every client gives the token ids of training.

The renderers below are written from the clients' documentation: SillyTavern's instruct mode (story string between its
prefix and suffix, then sequence + text + suffix a message, nothing else where `wrap` is off and names are `none`),
KoboldCpp's chat adapter (start + text + end a message, then the assistant's start).
"""

import json
from pathlib import Path
from typing import Any

import jinja2
import pytest

from scripts.pack.encode import encode_row
from scripts.recipe.pack import PackSettings
from scripts.recipe.prompt_format import FORMATS, FormatName
from scripts.recipe.release import ReleaseSettings
from scripts.recipe.tokenizer import SentencePieceTokenizer
from scripts.release.clients import client_files
from tests.unit.llama_readers import open_reader
from tests.unit.release_model import write_model

EOS = "</s>"
SYSTEM = "You are the keeper of a lighthouse.\nIt is night."
TURNS = [
    ("user", "Who is there?"),
    ("model", "Only me, and the sea."),
    ("user", "May I come in?\n\nIt rains."),
    ("model", "Wipe your boots first."),
    ("user", "Thank you!"),
]
ANSWER = "You are welcome."


def silly_tavern(files: dict[str, Any]) -> str:
    """Return the prompt that SillyTavern sends; its system prompt is SYSTEM and the character has no other text."""
    instruct, context = files["sillytavern/instruct.json"], files["sillytavern/context.json"]
    assert not instruct["wrap"] and instruct["names_behavior"] == "none"
    assert "{{#if system}}{{system}}\n{{/if}}" in context["story_string"]
    assert context["story_string"].endswith("{{trim}}"), "no line break is left behind the last text"
    story = SYSTEM.strip()
    parts = [instruct["story_string_prefix"] + story + instruct["story_string_suffix"], context["chat_start"]]
    for role, text in TURNS:
        kind = "input" if role == "user" else "output"
        parts.append(instruct[f"{kind}_sequence"] + text + instruct[f"{kind}_suffix"])
    return "".join(parts) + (instruct["last_output_sequence"] or instruct["output_sequence"])


def kobold_cpp(files: dict[str, Any]) -> str:
    """Return the prompt that KoboldCpp makes of the messages of its chat endpoint."""
    adapter = files["koboldcpp/adapter.json"]
    parts = [adapter["system_start"] + SYSTEM + adapter["system_end"]]
    for role, text in TURNS:
        kind = "user" if role == "user" else "assistant"
        parts.append(adapter[f"{kind}_start"] + text + adapter[f"{kind}_end"])
    return "".join(parts) + adapter["assistant_start"]


def template(name: FormatName) -> str:
    """Return what the chat template renders, without the begin token, which clients add themselves."""
    messages = [{"role": "system", "content": SYSTEM}]
    messages += [{"role": "user" if role == "user" else "assistant", "content": text} for role, text in TURNS]
    made = jinja2.Template(FORMATS[name].chat_template()).render(
        messages=messages, bos_token="", eos_token=EOS, add_generation_prompt=True
    )
    return str(made)


def trained_prompt(name: FormatName, tokenizer: SentencePieceTokenizer) -> list[int]:
    """Return what training put before ANSWER: the row's ids without the last model turn."""
    form = FORMATS[name]
    segments = [(form.system[0] + SYSTEM + form.system[1], False)]
    for index, (role, text) in enumerate([*TURNS, ("model", ANSWER)]):
        around = form.user if role == "user" else form.model
        between = form.between if index and role == "user" else ""
        if role == "user":
            segments.append((between + around[0] + text + around[1], False))
        else:
            segments += [(around[0], False), (text + around[1], True)]
    ids, _ = encode_row(tokenizer, segments, PackSettings())
    last = [*tokenizer.encode_continuation(ANSWER + form.model[1]).tolist(), tokenizer.eos_id]
    assert ids.tolist()[-len(last) :] == last
    return list(ids.tolist()[: -len(last)])


def client_ids(text: str, tokenizer: SentencePieceTokenizer) -> list[int]:
    """Return ids as backends do: the begin token, and the end token where its text stands."""
    ids = [tokenizer.bos_id]
    for number, part in enumerate(text.split(EOS)):
        ids += [tokenizer.eos_id] if number else []
        ids += tokenizer.encode(part).tolist()
    return ids


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with its tokenizer."""
    return write_model(tmp_path_factory.mktemp("clients") / "model")


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_client_sends_the_ids_of_training(name: FormatName, model: Path) -> None:
    tokenizer = SentencePieceTokenizer((model / "tokenizer.model").read_bytes())
    files = {path: json.loads(text) for path, text in client_files(name, "tiny", EOS).items()}
    wanted = trained_prompt(name, tokenizer)
    for text in (silly_tavern(files), kobold_cpp(files), template(name)):
        assert client_ids(text, tokenizer) == wanted


@pytest.mark.parametrize("binding", ["xllamacpp", "llama_cpp"])
def test_llama_cpp_reads_the_clients_text_so(model: Path, tmp_path: Path, binding: str) -> None:
    from scripts.release.gguf_file import write_gguf

    write_gguf(model, tmp_path / "m.gguf", "f16", "tiny", ReleaseSettings())
    tokenizer = SentencePieceTokenizer((model / "tokenizer.model").read_bytes())
    files = {path: json.loads(text) for path, text in client_files("metharme", "tiny", EOS).items()}
    reader = open_reader(binding, tmp_path / "m.gguf")
    assert reader.prompt_tokens(kobold_cpp(files)) == trained_prompt("metharme", tokenizer)


def test_presets_stop_where_the_model_stops_and_add_the_begin_token() -> None:
    files = {path: json.loads(text) for path, text in client_files("metharme", "tiny", EOS).items()}
    assert files["sillytavern/instruct.json"]["stop_sequence"] == EOS
    assert files["sillytavern/sampler.json"]["add_bos_token"] is True
    assert files["sillytavern/sampler.json"]["ban_eos_token"] is False
