"""Create: names, bits and loading of a model made from a seed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts.artifact.stage import Job, StageError
from scripts.artifact.tensors import read_header
from scripts.create.build import build
from scripts.create.weights import as_bfloat16, initial_weight
from scripts.recipe.create import CreateSpec, LlamaShape, TokenizerChoice

NOUNS = [
    "harbour",
    "lantern",
    "orchard",
    "river",
    "kettle",
    "meadow",
    "violin",
    "teapot",
    "garden",
    "compass",
    "bridge",
    "sparrow",
    "pepper",
    "cloud",
]
VERBS = [
    "opens",
    "paints",
    "carries",
    "finds",
    "mends",
    "follows",
    "borrows",
    "remembers",
    "washes",
    "greets",
    "measures",
    "waters",
]


def sentences(count: int) -> list[str]:
    """Return wholesome sentences that differ from one another."""
    return [
        f"The {NOUNS[i % 14]} keeper {VERBS[i % 12]} the {NOUNS[(i * 5 + 3) % 14]} number {i} near the caf\u00e9."
        for i in range(count)
    ]


def write_mix(folder: Path, rows: int = 60) -> Path:
    """Write a mix artifact's train.parquet."""
    folder.mkdir(parents=True)
    table = [
        [{"text": f"<|user|>{a}\nAnd then?<|model|>", "trained": False}, {"text": b, "trained": True}]
        for a, b in zip(sentences(rows), reversed(sentences(rows)), strict=True)
    ]
    ids = [f"row-{i}" for i in range(rows)]
    pq.write_table(pa.table({"id": ids, "source": ["tales"] * rows, "segments": table}), folder / "train.parquet")
    return folder


def spec(**changes: object) -> CreateSpec:
    """Return a tiny model's spec."""
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= {"num_key_value_heads": 2, "max_position_embeddings": 128}
    values: dict[str, object] = {
        "model": "tiny",
        "architecture": LlamaShape.model_validate(shape),
        "tokenizer": TokenizerChoice(mixture="chats", vocab_size=400),
        "seed": 42,
    }
    return CreateSpec.model_validate(values | changes)


def make(root: Path, out: str, wanted: CreateSpec) -> Path:
    """Run the stage by hand; the inputs are made on first use."""
    mix = root / "mix" / "chats"
    if not mix.exists():
        write_mix(mix)
    (root / out).mkdir()
    inputs = {"mix/chats": mix}
    if wanted.tokenizer.download is not None:
        inputs[f"download/{wanted.tokenizer.download}"] = root / "download" / wanted.tokenizer.download
    build(Job(wanted, inputs, root / out, root / "work", 1))
    return root / out


def test_two_runs_and_another_process_give_the_same_bytes(tmp_path: Path) -> None:
    first, second, third = make(tmp_path, "a", spec()), make(tmp_path, "b", spec()), tmp_path / "c"
    third.mkdir()
    code = (
        "import sys; from pathlib import Path; from scripts.artifact.stage import Job;"
        "from scripts.create.build import build; from scripts.recipe.create import CreateSpec;"
        "build(Job(CreateSpec.model_validate_json(sys.argv[1]), {'mix/chats': Path(sys.argv[2])},"
        " Path(sys.argv[3]), Path('unused'), 2));"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    arguments = [spec().model_dump_json(), str(tmp_path / "mix" / "chats"), str(third)]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, env={"PYTHONHASHSEED": "7", "PYTHONPATH": "."})
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(
        [
            "chat_template.jinja",
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer.model",
            "tokenizer_config.json",
        ]
    )
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes() == (third / name).read_bytes(), name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_transformers_loads_every_tensor_and_computes(tmp_path: Path, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = make(tmp_path, dtype, spec(dtype=dtype))
    with (folder / "model.safetensors").open("rb") as handle:
        header = json.loads(handle.read(int.from_bytes(handle.read(8), "little")))
    assert header["__metadata__"] == {"format": "pt"}
    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    assert set(model.state_dict()) == {entry.name for entry in read_header(folder / "model.safetensors")}
    assert model.dtype == getattr(torch, dtype)
    assert model.config.rope_parameters["rope_theta"] == 10000.0 and not model.config.tie_word_embeddings
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        logits = model(**tokenizer("The river greets the garden.", return_tensors="pt")).logits
    assert logits.shape[-1] == 400 and torch.isfinite(logits).all()


def test_a_weight_depends_on_its_name_and_seed_alone() -> None:
    one = initial_weight("model.layers.0.mlp.up_proj.weight", (300, 70), 42, 0.02)
    assert not np.array_equal(one, initial_weight("model.layers.1.mlp.up_proj.weight", (300, 70), 42, 0.02))
    assert not np.array_equal(one, initial_weight("model.layers.0.mlp.up_proj.weight", (300, 70), 43, 0.02))
    assert abs(float(one.std()) - 0.02) < 0.0004 and abs(float(one.mean())) < 0.0004
    assert float(np.abs(one).max()) <= 3**0.5 * 0.02
    assert np.array_equal(one[:1].ravel(), initial_weight("model.layers.0.mlp.up_proj.weight", (1, 70), 42, 0.02)[0])
    # Golden bits: any platform must give these.
    assert one.ravel()[:3].tobytes().hex() == "fa67d33c8e7edebc52c9fcbc"


def test_blocks_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = initial_weight("w", (7, 5), 1, 0.1)
    monkeypatch.setattr("scripts.create.weights._WORDS", 3)
    assert np.array_equal(initial_weight("w", (7, 5), 1, 0.1), whole)


def test_bfloat16_rounds_to_nearest_even() -> None:
    torch = pytest.importorskip("torch")
    values = initial_weight("w", (100, 100), 5, 0.02).ravel()
    ties = np.array([1.00390625, 1.01171875, -1.00390625, 1.0, 0.0], dtype=np.float32)
    for given in (values, ties):
        expected = torch.from_numpy(given).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
        assert np.array_equal(as_bfloat16(given), expected)


def test_a_downloaded_tokenizer_is_taken_byte_for_byte(tmp_path: Path) -> None:
    trained = make(tmp_path, "a", spec())
    source = tmp_path / "download" / "base"
    source.mkdir(parents=True)
    with pytest.raises(StageError, match=r"holds no tokenizer\.model"):
        make(tmp_path, "b", spec(tokenizer=TokenizerChoice(download="base")))
    (source / "tokenizer.model").write_bytes((trained / "tokenizer.model").read_bytes())
    taken = make(tmp_path, "c", spec(tokenizer=TokenizerChoice(download="base")))
    for path in trained.iterdir():
        assert path.read_bytes() == (taken / path.name).read_bytes(), path.name
    (source / "tokenizer.model").write_bytes(b"not a model")
    with pytest.raises(StageError, match="not a sentencepiece model"):
        make(tmp_path, "d", spec(tokenizer=TokenizerChoice(download="base")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 30}, "hidden_size 30 over num_attention_heads 4"),
        ({"hidden_size": 36}, "hidden_size 36 over num_attention_heads 4"),
        ({"num_key_value_heads": 3}, "multiple of num_key_value_heads 3"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, int], message: str) -> None:
    shape = spec().architecture.model_copy(update=changes)
    with pytest.raises(StageError, match=message):
        make(tmp_path, "a", spec(architecture=shape))


def test_tokenizer_choices_that_can_not_work_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="no tokenizer of 60000 pieces could be trained"):
        make(tmp_path, "a", spec(tokenizer=TokenizerChoice(mixture="chats", vocab_size=60000)))
    (tmp_path / "mix" / "chats" / "train.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(StageError, match="not a mixture's file"):
        make(tmp_path, "damaged", spec())
    with pytest.raises(StageError, match="vocab_size is missing"):
        make(tmp_path, "b", spec(tokenizer=TokenizerChoice(mixture="chats")))
    with pytest.raises(StageError, match="exactly one of mixture, download"):
        make(tmp_path, "c", spec(tokenizer=TokenizerChoice()))
