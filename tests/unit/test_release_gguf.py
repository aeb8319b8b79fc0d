"""GGUF files, held against llama.cpp itself: the same tokens in, the same tokens out."""

import json
import math
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from scripts.artifact.stage import StageError
from scripts.artifact.tensors import read_header
from scripts.recipe.release import GgufType, ReleaseSettings
from scripts.recipe.tokenizer import SentencePieceTokenizer
from scripts.release.gguf_file import interleaved, read_tensor, write_gguf
from tests.unit.llama_readers import EOS, Reader, open_reader
from tests.unit.release_model import hostile_strings, write_model

LICENCE = ReleaseSettings(license="other", license_name="own-words", license_link="https://example.org/words")
PROMPTS = ["Once there was a", "The word order of this is", "one two three four", "", "12 and 13 are"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with both GGUF files."""
    folder = write_model(tmp_path_factory.mktemp("gguf") / "model")
    for kind in ("f16", "q8_0"):
        write_gguf(folder, folder / f"{kind}.gguf", kind, "tiny", LICENCE)
    return folder


@pytest.fixture(scope="module", params=["xllamacpp", "llama_cpp"])
def binding(request: pytest.FixtureRequest) -> str:
    """Which Python binding of llama.cpp reads."""
    return str(request.param)


@pytest.fixture(scope="module")
def f16(model: Path, binding: str) -> Reader:
    """llama.cpp with the 16-bit file."""
    return open_reader(binding, model / "f16.gguf")


def load(folder: Path, eight_bits: bool = False) -> LlamaForCausalLM:
    """Return the model in fp32, with weights as the 8-bit file holds them if asked."""
    llama = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if eight_bits:
        kind = gguf.GGMLQuantizationType.Q8_0
        for parameter in llama.parameters():
            if parameter.dim() > 1:
                rounded = gguf.quants.dequantize(gguf.quants.quantize(parameter.detach().numpy(), kind), kind)
                parameter.data = torch.from_numpy(rounded)
    return llama


def greedy(folder: Path, ids: list[int], count: int) -> list[int]:
    """Return transformers' likeliest tokens."""
    made = load(folder).generate(torch.tensor([ids]), max_new_tokens=count, do_sample=False, eos_token_id=EOS)
    return [token for token in made[0, len(ids) :].tolist() if token != EOS]


def test_the_same_tokens_for_a_thousand_hostile_strings(model: Path, f16: Reader) -> None:
    truth = SentencePieceTokenizer((model / "tokenizer.model").read_bytes()).processor
    texts = hostile_strings(1000)
    assert len(set(texts)) > 950
    assert [t for t in texts if f16.tokens(t) != truth.encode(t)] == []


def test_the_same_greedy_tokens_as_transformers(model: Path, f16: Reader) -> None:
    truth = SentencePieceTokenizer((model / "tokenizer.model").read_bytes())
    for prompt in PROMPTS:
        ids = [truth.bos_id, *truth.encode(prompt).tolist()]
        wanted = greedy(model, ids, 24)
        assert len(wanted) > 4, "the model ends at once: this shows nothing"
        assert f16.greedy(ids, 24) == wanted


def test_eight_bits_choose_what_eight_bit_weights_find_likeliest(model: Path, binding: str) -> None:
    """llama.cpp rounds activations to 8 bits too, so a near tie may fall the other way; nothing else may."""
    reader, llama = open_reader(binding, model / "q8_0.gguf"), load(model, eight_bits=True)
    truth = SentencePieceTokenizer((model / "tokenizer.model").read_bytes())
    same, gaps = [], []
    for prompt in PROMPTS:
        ids = [truth.bos_id, *truth.encode(prompt).tolist()]
        made = reader.greedy(ids, 24)
        assert len(made) > 4
        with torch.no_grad():
            logits = llama(torch.tensor([ids + made])).logits[0, len(ids) - 1 : -1]
        chosen = logits.gather(1, torch.tensor(made)[:, None])[:, 0]
        best, _ = logits.max(1)
        same += (chosen == best).tolist()
        gaps += ((best - chosen) / logits.std(1)).tolist()
    assert sum(same) > 0.8 * len(same)
    assert max(gaps) < 0.2, "in standard deviations of the logits; a wrong tensor gives 2 to 4"


def test_the_file_says_what_it_is(model: Path) -> None:
    fields = gguf.GGUFReader(model / "q8_0.gguf").fields
    assert fields["general.license"].contents() == "other"
    assert fields["general.license.name"].contents() == "own-words"
    assert fields["general.license.link"].contents() == "https://example.org/words"
    assert fields["llama.attention.head_count_kv"].contents() == 2
    assert fields["tokenizer.chat_template"].contents() == (model / "chat_template.jinja").read_text()
    types = {t.name: t.tensor_type.name for t in gguf.GGUFReader(model / "q8_0.gguf").tensors}
    assert types["blk.0.attn_q.weight"] == "Q8_0" and types["output_norm.weight"] == "F32"


def test_the_bytes_depend_on_nothing_else(model: Path, tmp_path: Path) -> None:
    write_gguf(model, tmp_path / "again.gguf", "f16", "tiny", LICENCE)
    assert (tmp_path / "again.gguf").read_bytes() == (model / "f16.gguf").read_bytes()


def test_bf16_is_read_exactly(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "bf16", dtype=torch.bfloat16)
    truth = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    path = folder / "model.safetensors"
    for entry in read_header(path):
        assert np.array_equal(read_tensor(path, entry), truth[entry.name].numpy())


def test_rows_of_a_head_are_interleaved() -> None:
    rows = np.arange(8, dtype=np.float32)[:, None]  # two heads of width 4: rows 0-3 and 4-7
    assert interleaved(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "mistral"}, "model_type llama, found 'mistral'"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope scaling 'yarn'"),
        ({"attention_bias": True}, "without biases"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path: Path, change: dict[str, object], said: str) -> None:
    folder = write_model(tmp_path / "odd")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(StageError, match=said):
        write_gguf(folder, tmp_path / "odd.gguf", "f16", "odd", LICENCE)


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("model.layers.1.mlp.up_proj.weight", math.nan, "holds nan, which is no weight"),
        ("model.layers.1.mlp.up_proj.weight", -math.inf, "holds inf, which is no weight"),
        ("model.norm.weight", math.nan, "model.norm.weight holds nan"),
    ],
)
def test_a_weight_that_is_no_number_is_refused(
    kind: GgufType, name: str, value: float, said: str, tmp_path: Path
) -> None:
    folder = write_model(tmp_path / "broken")
    weights = load_file(folder / "model.safetensors")
    weights[name].view(-1)[5] = value
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(StageError, match=said):
        write_gguf(folder, tmp_path / "broken.gguf", kind, "broken", LICENCE)


def test_a_weight_beyond_fp16_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "large", dtype=torch.bfloat16)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"].view(-1)[5] = 1e5
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(StageError, match="lm_head.weight holds 99840, fp16 ends at 65504"):
        write_gguf(folder, tmp_path / "large.gguf", "f16", "large", LICENCE)
