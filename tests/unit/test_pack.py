"""Pack: ids, labels and files of a whole artifact, and that the ids are those of inference."""

import io
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts.artifact.stage import Job, StageError
from scripts.pack.build import build
from scripts.pack.encode import encode_row
from scripts.pack.npy import NpyWriter
from scripts.pack.rows import pack_split
from scripts.pack.show import show
from scripts.recipe.pack import PackSettings, PackSpec
from scripts.recipe.tokenizer import SentencePieceTokenizer, load_tokenizer
from tests.unit.test_create import sentences
from tests.unit.test_tokenizer import llama, small

__all__ = ["llama", "small"]

TURNS = [
    ("<|system|>Be a lighthouse keeper.<|user|>Good evening!", False),
    ("<|model|>", False),
    ("Mind the  steps.", True),
    ("<|user|>I will.\n", False),
    ("<|model|>", False),
    ("*lights a lantern* Come in.", True),
]


def write_mix(folder: Path, rows: int = 40, long_rows: int = 0) -> Path:
    """Write a mix artifact of two sources; the last rows are longer than 128 tokens."""
    folder.mkdir(parents=True)
    for split, count in (("train", rows), ("validation", rows // 8)):
        table = []
        for index, text in enumerate(sentences(count)):
            reply = text * (40 if index >= count - long_rows else 1 + index % 3)
            table.append([{"text": f"<|user|>{text}<|model|>", "trained": False}, {"text": reply, "trained": True}])
        ids = [f"{split}-{i}" for i in range(count)]
        sources = ["tales" if i % 3 else "chats" for i in range(count)]
        segments = pa.list_(pa.struct([("text", pa.string()), ("trained", pa.bool_())]))
        columns = {"id": ids, "source": pa.array(sources, pa.string()), "segments": pa.array(table, segments)}
        pq.write_table(pa.table(columns), folder / f"{split}.parquet")
    return folder


def spec(**changes: object) -> PackSpec:
    values = {"sequence_len": 400, "micro_batch_size": 2, "num_epochs": 2}
    wanted = PackSettings.model_validate(values | changes)
    return PackSpec(model="tiny", mixture="chats", base="seed", settings=wanted, processes=2, seed=42)


def make(root: Path, out: str, base: Path, wanted: PackSpec, mix: Path | None = None) -> Path:
    mix = mix or root / "mix" / "chats"
    if not mix.exists():
        write_mix(mix)
    (root / out).mkdir(parents=True)
    build(Job(wanted, {"mix/chats": mix, "create/seed": base}, root / out, root / "work", 1))
    return root / out


def template_ids(base: Path, turns: list[tuple[str, str]], prompt: bool) -> list[int]:
    transformers = pytest.importorskip("transformers")
    auto = transformers.AutoTokenizer.from_pretrained(base)
    messages = [{"role": role, "content": text} for role, text in turns]
    rendered = auto.apply_chat_template(messages, tokenize=True, add_generation_prompt=prompt, return_dict=True)
    return list(rendered["input_ids"])


@pytest.mark.parametrize("base", ["small", "llama"])
def test_rows_are_what_the_chat_template_gives(base: str, request: pytest.FixtureRequest) -> None:
    """The whole row, and before each model turn the generation prompt: what inference sees."""
    folder = request.getfixturevalue(base)
    ids, _ = encode_row(load_tokenizer(folder), TURNS, PackSettings())
    turns = [("system", "Be a lighthouse keeper."), ("user", "Good evening!"), ("assistant", "Mind the  steps.")]
    turns += [("user", "I will.\n"), ("assistant", "*lights a lantern* Come in.")]
    assert ids.tolist() == template_ids(folder, turns, prompt=False)
    for count in (2, 4):
        prompt = template_ids(folder, turns[:count], prompt=True)
        assert ids[: len(prompt)].tolist() == prompt


def test_generation_goes_on_from_the_prompt_even_where_a_merge_would_cross(llama: Path) -> None:
    tokenizer = load_tokenizer(llama)
    ids, _ = encode_row(tokenizer, [("<|user|>Hi<|model|>", False), ('"Yes," she says.', True)], PackSettings())
    prompt = template_ids(llama, [("user", "Hi")], prompt=True)
    assert ids[: len(prompt)].tolist() == prompt
    # The piece >" would otherwise swallow the marker's end.
    assert tokenizer.encode('<|model|>"Yes')[4] != prompt[-1] == ids[len(prompt) - 1]


def test_halves_are_the_originals_ids(llama: Path) -> None:
    tokenizer = load_tokenizer(llama)
    assert isinstance(tokenizer, SentencePieceTokenizer)
    settings = PackSettings(tokenization="halves", eos_count=3, boundary_label="keep")
    ids, trained = encode_row(tokenizer, TURNS, settings)
    prompt, generation = "".join(text for text, _ in TURNS[:-1]), TURNS[-1][0]
    truth = tokenizer.processor.encode
    assert ids.tolist() == [1, *truth(prompt), *truth(generation), 2, 2, 2]
    assert trained.all()
    assert ids[1:6].tolist() == [529, 29989, 5205, 29989, 29958]
    masked = settings.model_copy(update={"train_on_inputs": False, "boundary_label": "ignore"})
    _, trained = encode_row(tokenizer, TURNS, masked)
    assert trained.tolist() == [0] * (1 + len(truth(prompt))) + [1] * (len(truth(generation)) + 3)


def test_flags_cover_the_models_turns_and_their_ends(small: Path) -> None:
    tokenizer = load_tokenizer(small)
    ids, trained = encode_row(tokenizer, TURNS, PackSettings(train_on_inputs=False, eos_count=2))
    learned = "".join(tokenizer.decode(ids[i : i + 1]) for i in np.flatnonzero(trained))
    assert learned == "Mind the  steps.*lights a lantern* Come in."
    assert trained[ids == 2].tolist() == [1, 1, 1] and ids[-2:].tolist() == [2, 2] and ids[-3] != 2
    assert trained[0] == 0
    _, everything = encode_row(tokenizer, TURNS, PackSettings())
    assert everything.tolist() == [0] + [1] * (len(everything) - 1)


def test_payload_is_whole_and_reproducible(small: Path, tmp_path: Path) -> None:
    mix = write_mix(tmp_path / "mix" / "chats", rows=40, long_rows=2)
    first = make(tmp_path, "a", small, spec(), mix)
    assert {path.name for path in first.iterdir()} == {
        *(f"{split}_{part}" for split in ("train", "validation") for part in ("input_ids.npy", "trained.npy")),
        *(f"{split}_{part}" for split in ("train", "validation") for part in ("rows.npy", "row_ids.parquet")),
        *("schedule_offsets.npy", "schedule_rows.npy", "validation_offsets.npy", "validation_schedule.npy"),
        "pack.json",
    }
    facts = json.loads((first / "pack.json").read_text())
    ids, rows = np.load(first / "train_input_ids.npy"), np.load(first / "train_rows.npy")
    assert ids.dtype == np.uint16 and rows.dtype == np.int64 and np.load(first / "train_trained.npy").dtype == np.uint8
    assert facts["dropped"] == {"too_long": 2, "validation_too_long": 2} and facts["train_rows"] == 38 == len(rows) - 1
    assert rows[-1] == len(ids) == facts["train_tokens"] == sum(s["tokens"] for s in facts["sources"].values())
    assert (ids[rows[:-1]] == 1).all() and (ids[rows[1:] - 1] == 2).all()
    names = pq.read_table(first / "train_row_ids.parquet").to_pylist()
    assert [row["id"] for row in names] == [f"train-{i}" for i in range(38)]
    offsets, read = np.load(first / "schedule_offsets.npy"), np.load(first / "schedule_rows.npy")
    assert read.dtype == np.int32 and len(offsets) == facts["steps"] * 2 + 1
    assert sorted(read.tolist()) == sorted([*range(38)] * 2)
    assert facts["efficiency"] == pytest.approx(2 * len(ids) / (facts["steps"] * 2 * 2 * 400))

    code = (
        "import sys; from pathlib import Path; from scripts.artifact.stage import Job;"
        "from scripts.pack.build import build; from scripts.recipe.pack import PackSpec;"
        "p = [Path(a) for a in sys.argv[2:]]; p[2].mkdir();"
        "spec = PackSpec.model_validate_json(sys.argv[1]);"
        "build(Job(spec, {'mix/chats': p[0], 'create/seed': p[1]}, p[2], p[2], 2));"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, spec().model_dump_json(), *map(str, (mix, small, tmp_path / "b"))]
    subprocess.run(command, check=True, env={"PYTHONHASHSEED": "9", "PYTHONPATH": "."})
    for path in first.iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("memo", [True, False])
def test_any_number_of_processes_gives_the_same_bytes(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memo: bool
) -> None:
    """Also with the plain tokenizer, which a vocabulary gets whose words depend on each other."""
    mix = write_mix(tmp_path / "mix" / "chats", rows=60, long_rows=3)
    monkeypatch.setattr("scripts.pack.rows._BATCH_ROWS", 7)
    expected = make(tmp_path, "expected", small, spec(), mix)
    monkeypatch.setattr("scripts.pack.rows._ROWS_WORTH_A_PROCESS", 1)
    load = partial(SentencePieceTokenizer, (small / "tokenizer.model").read_bytes(), memo)
    for threads in (1, 3):
        out = tmp_path / f"{threads}"
        out.mkdir()
        for split in ("train", "validation"):
            pack_split(mix, split, out, load, spec(), threads)
        for path in out.iterdir():
            assert path.read_bytes() == (expected / path.name).read_bytes(), path.name


def test_bad_input_is_one_clear_error(small: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"no training row is left: 40 rows are longer than sequence_len 3"):
        make(tmp_path, "a", small, spec(sequence_len=3))
    (tmp_path / "empty").mkdir()
    with pytest.raises(StageError, match=r"holds neither tokenizer\.model nor tokenizer\.json"):
        make(tmp_path, "b", tmp_path / "empty", spec())
    (tmp_path / "empty" / "tokenizer.model").write_bytes((small / "tokenizer.model").read_bytes())
    (tmp_path / "empty" / "config.json").write_text('{"vocab_size": 300}')
    with pytest.raises(StageError, match=r"the tokenizer has 400 ids, but config\.json says vocab_size 300"):
        make(tmp_path, "c", tmp_path / "empty", spec())
    bad = tmp_path / "bad"
    bad.mkdir()
    segments = [[{"text": "<|user|>Hi", "trained": False}]]
    pq.write_table(pa.table({"id": ["r7"], "source": ["s"], "segments": segments}), bad / "train.parquet")
    with pytest.raises(StageError, match="row 'r7' doesn't end in a model turn"):
        make(tmp_path, "d", small, spec(), bad)
    pq.write_table(pa.table({"id": ["r7"]}), bad / "train.parquet")
    with pytest.raises(StageError, match="not a mixture's file"):
        make(tmp_path, "e", small, spec(), bad)


def test_ids_beyond_16_bits_are_refused(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = load_tokenizer(small)
    tokenizer.vocab_size = 65537
    monkeypatch.setattr("scripts.pack.base.load_tokenizer", lambda folder: tokenizer)
    with pytest.raises(StageError, match="65,537 token ids; packed rows are 16-bit"):
        make(tmp_path, "a", small, spec())


def test_npy_writer_gives_numpys_own_bytes(tmp_path: Path) -> None:
    pieces = [np.arange(n, dtype=np.uint16) for n in (3, 0, 70_000)]
    with NpyWriter(tmp_path / "a.npy", np.uint16) as writer:
        for piece in pieces:
            writer.append(piece)
    expected = io.BytesIO()
    np.save(expected, np.concatenate(pieces))
    assert (tmp_path / "a.npy").read_bytes() == expected.getvalue()


def test_show_prints_a_row(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path, "results/r/pack/tiny", small, spec(train_on_inputs=False))
    assert show([str(folder), "5", "--base", str(small)]) == 0
    plain = capsys.readouterr().out
    text = sentences(40)[5]
    assert "train row 5: train-5 from tales" in plain and f"<|user|>{text}" in plain
    assert f"<|model|>[{text * 3}]" in plain
    assert plain.count("(") >= 2, "places in the schedule"
    assert show([str(folder), "5", "--base", str(small), "--color", "always"]) == 0
    assert f"\x1b[32m{text * 3}\x1b[0m" in capsys.readouterr().out
    assert show([str(folder), "99", "--base", str(small)]) == 1
    assert "has rows 0 to 39, not 99" in capsys.readouterr().err
    assert show([str(folder), "0"]) == 1
    assert "names no base model; give its folder with --base" in capsys.readouterr().err
    record = {"inputs": [["mix/chats", "1"], ["create/seed", "2"]], "spec": {"base": "seed"}}
    (folder / "artifact.json").write_text(json.dumps(record))
    base = tmp_path / "results" / "r" / "create" / "seed"
    base.mkdir(parents=True)
    (base / "tokenizer.model").write_bytes((small / "tokenizer.model").read_bytes())
    assert show([str(folder), "0", "--split", "validation"]) == 0
    assert "validation row 0: validation-0 from chats" in capsys.readouterr().out


def shares(folder: Path, lengths: dict[str, list[int]]) -> Path:
    """Write a mix artifact whose training rows of each source have about as many words as named."""
    folder.mkdir(parents=True)
    segments = pa.list_(pa.struct([("text", pa.string()), ("trained", pa.bool_())]))
    for split in ("train", "validation"):
        table: dict[str, list[object]] = {"id": [], "source": [], "segments": []}
        for source, words in lengths.items():
            for number, count in enumerate(words if split == "train" else words[-1:]):
                turns = [{"text": "<|user|>Hi<|model|>", "trained": False}, {"text": "so " * count, "trained": True}]
                for column, value in zip(table.values(), (f"{source}-{number}", source, turns), strict=True):
                    column.append(value)
        arrays = {"id": pa.array(table["id"], pa.string()), "source": pa.array(table["source"], pa.string())}
        pq.write_table(
            pa.table({**arrays, "segments": pa.array(table["segments"], segments)}), folder / f"{split}.parquet"
        )
    return folder


def test_rows_that_are_too_long_are_told_by_source(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mix = shares(tmp_path / "mix" / "chats", {"chats": [3] * 20, "tales": [3, 900, 900]})
    facts = json.loads((make(tmp_path, "a", small, spec(), mix) / "pack.json").read_text())
    assert facts["too_long_by_source"] == {"train": {"tales": 2}, "validation": {"tales": 1}}
    assert facts["dropped"] == {"too_long": 2, "validation_too_long": 1} and facts["sources"]["tales"]["rows"] == 1
    assert capsys.readouterr().err.splitlines() == [
        "tales: 2 of 3 training rows are longer than sequence_len 400 and are left out",
        "tales: 1 of 1 validation rows are longer than sequence_len 400 and are left out",
    ]


def test_a_source_that_loses_all_its_rows_is_refused(small: Path, tmp_path: Path) -> None:
    mix = shares(tmp_path / "mix" / "chats", {"chats": [3] * 20, "tales": [900, 900]})
    with pytest.raises(StageError, match=r"tales: 2 of 2 training rows are longer than sequence_len 400") as caught:
        make(tmp_path, "a", small, spec(), mix)
    for part in ("models.tiny.train.pack.sequence_len", "mixtures.chats.sources"):
        assert part in str(caught.value)
    # Where nothing is left out, pack.json has no word of it: its bytes are those of before.
    whole = make(tmp_path, "b", small, spec(sequence_len=4000), mix)
    assert "too_long_by_source" not in json.loads((whole / "pack.json").read_text())


def with_config(folder: Path, small: Path, **config: object) -> Path:
    """Write a model folder that is a tokenizer and a config.json."""
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes((small / "tokenizer.model").read_bytes())
    (folder / "config.json").write_text(json.dumps({"vocab_size": 400, **config}))
    return folder


def test_rows_longer_than_the_base_has_positions_are_refused(small: Path, tmp_path: Path) -> None:
    short = with_config(tmp_path / "short", small, max_position_embeddings=256)
    text = r"max_position_embeddings 256, sequence_len is 400: .* set models\.tiny\.train\.pack\.sequence_len to 256"
    with pytest.raises(StageError, match=text):
        make(tmp_path, "a", short, spec())
    yarn = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 128}
    with pytest.raises(StageError, match="sequence_len is 400"):
        make(
            tmp_path, "b", with_config(tmp_path / "yarn", small, max_position_embeddings=256, rope_scaling=yarn), spec()
        )
    for number, scaled in enumerate(({"type": "linear", "factor": 2.0}, {"rope_type": "dynamic", "factor": 4})):
        base = with_config(tmp_path / f"scaled{number}", small, max_position_embeddings=256, rope_scaling=scaled)
        make(tmp_path, f"c{number}", base, spec())
    make(tmp_path, "d", with_config(tmp_path / "exact", small, max_position_embeddings=400, rope_scaling=None), spec())


def test_a_missing_tokenizer_config_is_named_with_its_key(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "tokenizer.json").write_text("{}")
    with pytest.raises(
        StageError, match=r"needs tokenizer_config\.json .*; name it under models\.seed\.download\.files"
    ):
        make(tmp_path, "a", base, spec())
