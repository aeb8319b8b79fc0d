"""Plans from headers alone: golden ratios, coverage, and one clear error for everything that can't be merged."""

import json
import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from scripts.artifact.digest import ArtifactError
from scripts.artifact.stage import StageError
from scripts.merge.layout import LlamaShapes, gradient_keys, llama_tensors
from scripts.merge.models import open_model
from scripts.merge.plan import make_plan
from scripts.merge.ratios import Blend, assign
from scripts.recipe.merge import MergeSettings
from tests.unit import merge_toy as toys

COLUMNS = ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.gate", "mlp.up", "mlp.down")
GOLDEN = {
    0: (0.20000, 0.20377, 0.20755, 0.21132, 0.80000, 0.79496, 0.78992),
    20: (0.50189, 0.50566, 0.50943, 0.51321, 0.49748, 0.49244, 0.48739),
    39: (0.78868, 0.79245, 0.79623, 0.80000, 0.21008, 0.20504, 0.20000),
}


def ratios(layers: int = 40, legacy: bool = False, **more: Any) -> dict[str, Blend]:
    """Return the blends of a merge of paper models."""
    settings = MergeSettings.model_validate({"models": ["a", "b"], "operations": toys.MYTHALION, **more})
    tensors = llama_tensors(LlamaShapes(layers, 8, 8, 1, 1, 8, 8))
    return assign(settings, gradient_keys(tensors, legacy), layers)


def test_the_golden_table_of_mythalion() -> None:
    found = ratios()
    assert len(found) == 363
    for layer, row in GOLDEN.items():
        for column, ratio in zip(COLUMNS, row, strict=True):
            assert found[f"model.layers.{layer}.{column}_proj.weight"].ratio == pytest.approx(ratio, abs=5e-6)
    for layer in range(40):
        for j, name in enumerate("qkvo"):
            wanted = 0.2 + 0.6 * (4 * layer + j) / 159
            assert found[f"model.layers.{layer}.self_attn.{name}_proj.weight"].ratio == pytest.approx(wanted, abs=1e-12)
    others = {b.ratio for n, b in found.items() if "self_attn" not in n and "mlp" not in n}
    assert others == {0.5}


def test_the_golden_table_is_monotone() -> None:
    found = ratios()
    for word, sign in (("self_attn", 1), ("mlp", -1)):
        row = [sign * blend.ratio for name, blend in found.items() if word in name]
        assert all(x < y for x, y in pairwise(row))


def test_legacy_keys_shift_ratios_by_at_most_0_0030() -> None:
    new, old = ratios(), ratios(legacy=True)
    shifts = {n: abs(new[n].ratio - old[n].ratio) for n in new}
    assert max(shifts.values()) == pytest.approx(0.0030, abs=5e-5)
    assert {n for n, s in shifts.items() if s} <= {n for n in new if "self_attn" in n}
    assert len(old) == 363 + 40


def test_mythologic_mini_covers_288_keys_in_three_sections() -> None:
    found = ratios(32, operations=toys.MYTHOLOGIC_MINI, uncovered="first_model")
    row = [b.ratio for b in found.values() if b.ratios]
    assert len(row) == 288
    assert row[0] == 0.9
    assert row[95:] == [0.0] * 193


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            {"operations": [{"filter": "self_atn", "gradient_values": [0.5]}]},
            ['did you mean "self_attn"', "none of 363"],
        ),
        ({"operations": [{"filter": "lm_haed", "gradient_values": [0.5]}]}, ['did you mean "lm_head"']),
        (
            {"operations": [*toys.MYTHALION, {"filter": "q_proj", "gradient_values": [0.5]}]},
            ["'q_proj'", "self_attn", "allow_compound"],
        ),
        ({"operations": toys.MYTHALION[1:]}, ["1 tensors", "lm_head.weight", "uncovered"]),
        ({"operations": [{"filter": "lm_head", "layer_only": True, "gradient_values": [0.5]}]}, ["with layer_only"]),
    ],
)
def test_coverage_errors_name_tensors_and_the_way_out(more: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(StageError) as error:
        ratios(**more)
    assert [w for w in words if w not in str(error.value)] == []


def test_linear_goes_by_layer_and_the_first_match_wins() -> None:
    operations = [
        {"filter": "self_attn.q", "gradient_values": [0.0, 1.0]},
        {"filter": "self_attn", "gradient_values": [0.2, 0.4, 0.8]},
        {"filter": "", "gradient_values": [0.3]},
    ]
    found = ratios(5, operations=operations, method="linear")
    assert [found[f"model.layers.{i}.self_attn.q_proj.weight"].ratio for i in range(5)] == [0, 0.25, 0.5, 0.75, 1]
    row = [found[f"model.layers.{i}.self_attn.v_proj.weight"].ratio for i in range(5)]
    assert row == pytest.approx([0.2, 0.3, 0.4, 0.6, 0.8])
    assert found["lm_head.weight"].ratio == 0.3


Change = Callable[[dict[str, Any]], Any]
FIELDS: list[tuple[str, dict[str, Any]]] = [
    ("num_hidden_layers", {"layers": 3}),
    ("num_attention_heads", {"num_attention_heads": 4}),
    ("num_key_value_heads", {"num_key_value_heads": 1}),
    ("hidden_size", {"hidden": 16}),
    ("intermediate_size", {"intermediate_size": 24}),
    ("rope_theta", {"rope_theta": 1e6}),
    ("rms_norm_eps", {"rms_norm_eps": 1e-6}),
    ("vocab_size", {"vocabulary": 14}),
    ("tie_word_embeddings", {"tie_word_embeddings": True}),
    ("rope_type", {"rope_scaling": {"type": "linear", "factor": 2.0}}),
]


@pytest.mark.parametrize(("field", "change"), FIELDS, ids=[f for f, _ in FIELDS])
def test_differing_configs_are_named_by_field(field: str, change: dict[str, Any], tmp_path: Path) -> None:
    first, second = toys.toy(tmp_path / "a", 1), toys.toy(tmp_path / "b", 2, **change)
    with pytest.raises(StageError, match=field) as error:
        toys.merge(tmp_path, first, second)
    assert "first" in str(error.value)
    assert "second" in str(error.value)


def test_old_and_new_forms_of_the_rotary_settings_are_equal(tmp_path: Path) -> None:
    first = toys.toy(tmp_path / "a", 1)
    second = toys.toy(
        tmp_path / "b", 2, rope_theta=None, rope_parameters={"rope_theta": 10000.0, "rope_type": "default"}
    )
    assert toys.merge(tmp_path, first, second).counts["tensors"] == 21


@pytest.mark.parametrize("field", ["auto_map", "_attn_implementation_internal", "trust_remote_code"])
def test_configs_that_choose_code_are_refused(field: str, tmp_path: Path) -> None:
    first, second = toys.toy(tmp_path / "a", 1), toys.toy(tmp_path / "b", 2, **{field: "x"})
    with pytest.raises(StageError, match=field):
        toys.merge(tmp_path, first, second)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("side", [0, 1])
def test_nan_and_infinity_are_refused_with_tensor_and_index(value: float, side: int, tmp_path: Path) -> None:
    settings = toys.config()
    pair = [toys.weights(settings, seed, "bfloat16") for seed in (1, 2)]
    name = "model.layers.1.mlp.up_proj.weight"
    pair[side][name][3, 5] = value
    first, second = (toys.save(tmp_path / n, settings, w) for n, w in zip("ab", pair, strict=True))
    with pytest.raises(StageError) as error:
        toys.merge(tmp_path, first, second, threads=2)
    assert name in str(error.value)
    assert f"element {3 * 8 + 5} " in str(error.value)
    assert ("first", "second")[side] in str(error.value)
    assert not list((tmp_path / "out").glob("*.safetensors"))


@pytest.mark.parametrize("sizes", [(14, 12), (12, 14)])
def test_first_model_rows_keeps_its_vocabulary(sizes: tuple[int, int], tmp_path: Path) -> None:
    first = toys.toy(tmp_path / "a", 1, vocabulary=sizes[0])
    second = toys.toy(tmp_path / "b", 2, vocabulary=sizes[1])
    made = toys.merge(tmp_path, first, second, vocabulary="first_model_rows")
    wanted = toys.reference(toys.load(first), toys.load(second), toys.MYTHALION)
    assert toys.same_bits(toys.load(made.out), wanted) == []
    assert json.loads((made.out / "config.json").read_text())["vocab_size"] == sizes[0]
    figures = json.loads((made.out / "merge.json").read_text())["tensors"]["lm_head.weight"]
    c, b = toys.load(made.out)["lm_head.weight"].float(), toys.load(second)["lm_head.weight"]
    rows = min(sizes)
    assert figures["norm_c_minus_b"] == pytest.approx(float((c[:rows] - b[:rows]).norm()), rel=1e-5)


def test_by_token_pairs_rows_of_equal_text(tmp_path: Path) -> None:
    first, second = toys.toy(tmp_path / "a", 1, vocabulary=12), toys.toy(tmp_path / "b", 2, vocabulary=14)
    ours = [f"t{i}" for i in range(12)]
    theirs = ["<new>", "t5", "t6", "t7", *ours[:5], *ours[8:11], "<x>", "<y>"]  # t11 is missing
    for folder, texts in ((first, ours), (second, theirs)):
        vocabulary = {text: i for i, text in enumerate(texts)}
        (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    made = toys.merge(tmp_path, first, second, vocabulary="by_token")
    a, b = toys.load(first), toys.load(second)
    aligned = dict(b)
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        aligned[name] = torch.stack(
            [b[name][theirs.index(t)] if t in theirs else a[name][i] for i, t in enumerate(ours)]
        )
    wanted = toys.reference(a, aligned, toys.MYTHALION)
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        wanted[name][11] = a[name][11].half()
    assert toys.same_bits(toys.load(made.out), wanted) == []


def test_by_token_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    first, second = toys.toy(tmp_path / "a", 1), toys.toy(tmp_path / "b", 2)
    (second / "tokenizer.json").unlink()
    (second / "tokenizer.model").unlink()
    with pytest.raises(StageError, match="by_token needs"):
        toys.merge(tmp_path, first, second, vocabulary="by_token")


def test_tied_embeddings_are_one_tensor_with_one_ratio(tmp_path: Path) -> None:
    first, second = (toys.toy(tmp_path / n, s, tie_word_embeddings=True) for s, n in enumerate("ab"))
    made = toys.merge(tmp_path, first, second)
    wanted = toys.reference(toys.load(first), toys.load(second), toys.MYTHALION[1:])
    assert toys.same_bits(toys.load(made.out), wanted) == []
    assert "lm_head.weight" not in wanted
    with pytest.raises(StageError, match="one tensor"):
        toys.merge(
            tmp_path / "2",
            first,
            second,
            operations=[{**toys.MYTHALION[0], "gradient_values": [0.7]}, *toys.MYTHALION[1:]],
        )
    assert toys.merge(tmp_path / "3", first, second, operations=toys.MYTHALION[1:]).tensors == made.tensors


def test_old_rotary_buffers_are_left_out_and_counted(tmp_path: Path) -> None:
    settings = toys.config()
    buffers = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(2) for i in range(2)}
    plain = toys.weights(settings, 1, "float16")
    first = toys.save(tmp_path / "a", settings, {**plain, **buffers})
    second = toys.toy(tmp_path / "b", 2)
    made = toys.merge(tmp_path, first, second)
    assert made.counts["dropped_rotary_buffers"] == 2
    assert toys.same_bits(toys.load(made.out), toys.reference(plain, toys.load(second), toys.MYTHALION)) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("lm_head.weight"), ["missing", "lm_head.weight"]),
        (lambda t: t.update({"model.layers.0.mlp.extra.weight": torch.ones(2)}), ["mlp.extra", "doesn't have"]),
        (lambda t: t.update({"model.norm.weight": torch.ones(9)}), ["model.norm.weight", "[9]", "[8]"]),
        (lambda t: t.update({"model.norm.weight": torch.ones(8, dtype=torch.int32)}), ["model.norm.weight", "I32"]),
    ],
)
def test_tensors_must_be_those_of_the_config(change: Change, words: list[str], tmp_path: Path) -> None:
    tensors = toys.weights(toys.config(), 1, "float16")
    change(tensors)
    first, second = toys.toy(tmp_path / "a", 2), toys.save(tmp_path / "b", toys.config(), tensors)
    with pytest.raises(StageError) as error:
        toys.merge(tmp_path, first, second)
    assert [w for w in ["second", *words] if w not in str(error.value)] == []


@pytest.mark.parametrize("file", ["../a.safetensors", "/etc/a.safetensors", "b/a.safetensors", "..", 7])
def test_an_index_may_name_only_files_beside_it(file: object, tmp_path: Path) -> None:
    folder = toys.toy(tmp_path / "a", 1, shards=2)
    index = folder / "model.safetensors.index.json"
    data = json.loads(index.read_text())
    data["weight_map"]["lm_head.weight"] = file
    index.write_text(json.dumps(data))
    with pytest.raises(ArtifactError, match=r"only plain|unreadable index"):
        open_model("a", folder)


def test_an_index_that_disagrees_with_the_shards_is_refused(tmp_path: Path) -> None:
    folder = toys.toy(tmp_path / "a", 1, shards=2)
    index = folder / "model.safetensors.index.json"
    data = json.loads(index.read_text())
    data["weight_map"]["ghost"] = data["weight_map"].pop("lm_head.weight")
    index.write_text(json.dumps(data))
    with pytest.raises(StageError, match="ghost"):
        open_model("a", folder)


def _with_header(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h["x"].update(data_offsets=[0, 12]),
        lambda h: h["y"].update(data_offsets=[8, 24]),
        lambda h: h["y"].update(data_offsets=[16, 48]),
        lambda h: h["x"].update(data_offsets=[0, 16.0]),
        lambda h: h["x"].update(data_offsets=[0]),
        lambda h: h["x"].update(data_offsets=[-8, 16]),
        lambda h: h["x"].update(shape=[5]),
        lambda h: h["x"].update(shape="44"),
        lambda h: h["x"].update(shape=[-2, -2]),
        lambda h: h["x"].update(dtype="F8"),
        lambda h: h["x"].update(dtype=["F32"]),
        lambda h: h.update(x=3),
    ],
)
def test_damaged_headers_give_a_clear_error(change: Callable[[dict[str, Any]], object], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"x": torch.ones(4), "y": torch.ones(4)}, path)
    _with_header(path, change)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match="not a valid safetensors file"):
        open_model("a", tmp_path)


@pytest.mark.parametrize(
    "raw", [b"", b"\1", struct.pack("<Q", 2**31), struct.pack("<Q", 2**63) + b"{}", struct.pack("<Q", 2) + b"[]"]
)
def test_short_files_and_giant_headers_give_a_clear_error(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(raw)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match="not a valid safetensors file"):
        open_model("a", tmp_path)


def test_every_truncation_is_an_error(tmp_path: Path) -> None:
    folder = toys.toy(tmp_path / "a", 1)
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    for length in range(0, len(raw), 101):
        path.write_bytes(raw[:length])
        with pytest.raises(ArtifactError):
            open_model("a", folder)


def test_the_first_model_gives_every_other_file(tmp_path: Path) -> None:
    first = toys.toy(tmp_path / "a", 1, _name_or_path="/srv/somebody/a")
    second = toys.toy(tmp_path / "b", 2, max_position_embeddings=99)
    one = toys.merge(tmp_path / "1", first, second).out
    for name in (
        "generation_config.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "chat_template.jinja",
    ):
        assert (one / name).read_bytes() == (first / name).read_bytes()
    found = json.loads((one / "config.json").read_text())
    assert found["max_position_embeddings"] == 64
    assert "_name_or_path" not in found
    two = toys.merge(tmp_path / "2", second, first).out
    assert json.loads((two / "config.json").read_text())["max_position_embeddings"] == 99


def test_added_tokens_beyond_the_vocabulary(tmp_path: Path) -> None:
    first, second = toys.toy(tmp_path / "a", 1), toys.toy(tmp_path / "b", 2)
    (first / "added_tokens.json").write_text(json.dumps({"<pad>": 12, "<mask>": 11}))
    data = json.loads((first / "tokenizer.json").read_text())
    added = [{"id": 12, "content": "<pad>"}, {"id": 11, "content": "<mask>"}]
    (first / "tokenizer.json").write_text(json.dumps({**data, "added_tokens": added}))
    decoder = {"added_tokens_decoder": {"12": {"content": "<pad>"}, "11": {"content": "<mask>"}}}
    (first / "tokenizer_config.json").write_text(json.dumps(decoder))
    with pytest.raises(StageError, match=r"'<pad>' has id 12.*12 rows.*added_tokens: drop"):
        toys.merge(tmp_path / "1", first, second)
    made = toys.merge(tmp_path / "2", first, second, added_tokens="drop")
    assert made.counts["dropped_tokens"] == ["<pad>"]
    assert json.loads((made.out / "added_tokens.json").read_text()) == {"<mask>": 11}
    assert json.loads((made.out / "tokenizer.json").read_text())["added_tokens"] == added[1:]
    assert list(json.loads((made.out / "tokenizer_config.json").read_text())["added_tokens_decoder"]) == ["11"]


def test_planning_reads_no_weights(tmp_path: Path) -> None:
    first, second = toys.toy(tmp_path / "a", 1), toys.toy(tmp_path / "b", 2)
    for folder in (first, second):
        path = folder / "model.safetensors"
        raw = path.read_bytes()
        header = 8 + struct.unpack("<Q", raw[:8])[0]
        path.write_bytes(raw[:header] + b"\xff" * (len(raw) - header))  # NaN all over: a plan does not care
    plan = make_plan(toys.spec(), open_model("first", first), open_model("second", second))
    assert len(plan.tensors) == 21
    with pytest.raises(StageError, match="holds nan"):
        toys.merge(tmp_path, first, second)


def test_transformers_loads_the_result(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    first, second = toys.toy(tmp_path / "a", 1), toys.toy(tmp_path / "b", 2)
    made = toys.merge(tmp_path, first, second, max_shard_bytes=2000)
    model, facts = transformers.LlamaForCausalLM.from_pretrained(made.out, output_loading_info=True)
    assert model.dtype == torch.float16
    assert not any(facts[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(model.lm_head.weight, toys.load(made.out)["lm_head.weight"])
