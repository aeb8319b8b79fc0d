"""The mix stage on small clean artifacts made here."""

import hashlib
import itertools
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.artifact.stage import Job, StageError
from scripts.mix.__main__ import build
from scripts.mix.choose import Row, split, take
from scripts.recipe.mix import MixSpec, Share

ROOT = Path(__file__).resolve().parents[2]
TURN = pa.struct([("role", pa.string()), ("text", pa.string())])
SCHEMA = pa.schema([*((name, pa.string()) for name in ("id", "source", "label", "system")), ("turns", pa.list_(TURN))])


def episode(source: str, number: int) -> dict[str, Any]:
    turns = [{"role": "user", "text": f"{source} asks {number}"}, {"role": "model", "text": f"answer {number}"}]
    return {"id": f"{number:04d}", "source": source, "label": "general", "system": "Be kind.", "turns": turns}


def clean(folder: Path, source: str, rows: Iterable[dict[str, Any]]) -> Path:
    target = folder / "clean" / source
    target.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), target / "episodes.parquet", row_group_size=7)
    return target


def spec(sources: Mapping[str, Mapping[str, Any]], **more: Any) -> MixSpec:
    return MixSpec.model_validate({"mixture": "test", "val_set_size": 0.1, "seed": 7, "sources": sources, **more})


def run(folder: Path, wanted: MixSpec, name: str = "out") -> Job[MixSpec]:
    out = folder / name
    out.mkdir()
    inputs = {f"clean/{s}": folder / "clean" / s for s in wanted.sources}
    job = Job(wanted, inputs, out, folder / "work", 1)
    build(job)
    assert not list((folder / "work").glob("*")), "drafts are removed"
    return job


def rows_of(job: Job[MixSpec], part: str) -> list[dict[str, Any]]:
    return list(pq.read_table(job.out / f"{part}.parquet").to_pylist())


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


@pytest.fixture
def two(tmp_path: Path) -> Path:
    for source in ("left", "right"):
        clean(tmp_path, source, (episode(source, n) for n in range(60)))
    return tmp_path


def test_every_conversation_once_in_the_right_format(two: Path) -> None:
    job = run(two, spec({"left": {}, "right": {}}))
    train, validation = rows_of(job, "train"), rows_of(job, "validation")
    assert sorted((r["source"], r["id"]) for r in train + validation) == [
        (source, f"{n:04d}") for source in ("left", "right") for n in range(60)
    ]
    row = next(r for r in train if r["source"] == "left")
    number = int(row["id"])
    assert "".join(s["text"] for s in row["segments"]) == (
        f"<|system|>Be kind.<|user|>left asks {number}<|model|>answer {number}"
    )
    assert [s["trained"] for s in row["segments"]] == [False, False, False, True]
    assert 4 <= len(validation) <= 24
    mix = json.loads((job.out / "mix.json").read_text())
    assert (mix["mixture"], mix["format"], mix["seed"], mix["missing_sources"]) == ("test", "metharme", 7, [])
    assert list(mix["sources"]) == ["left", "right"]
    for source, facts in mix["sources"].items():
        of_source = [r for r in train if r["source"] == source]
        assert facts["episodes_in"] == 60 == facts["rows_train"] + facts["rows_validation"]
        assert facts["rows_train"] == len(of_source)
        assert facts["chars_train"] == sum(len(s["text"]) for r in of_source for s in r["segments"])
    assert job.counts["rows_train"] == len(train)


def test_no_source_is_contiguous(two: Path) -> None:
    order = [r["source"] for r in rows_of(run(two, spec({"left": {}, "right": {}})), "train")]
    changes = sum(a != b for a, b in itertools.pairwise(order))
    assert changes > 30  # 53 expected of 107 neighbours in a fair shuffle; 1 if the sources stood one after another


@pytest.mark.parametrize("how", ["hash", "file_tail"])
def test_order_of_the_input_rows_does_not_matter(two: Path, how: str) -> None:
    wanted = spec({"left": {"max_rows": 40, "weight": 1.5}, "right": {"weight": 0.5}}, val_split=how)
    first = digests(run(two, wanted).out)
    for source in ("left", "right"):
        rows = [episode(source, n) for n in range(60)]
        random.Random(3).shuffle(rows)
        clean(two, source, rows)
    assert digests(run(two, wanted, "again").out) == first


def test_bytes_do_not_depend_on_the_bucket_of_a_row(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = spec({"left": {}, "right": {}})
    first = digests(run(two, wanted).out)
    monkeypatch.setattr("scripts.mix.write._WAITING_ROWS", 3)
    assert digests(run(two, wanted, "few").out) == first
    monkeypatch.setattr("scripts.mix.write._BUCKET_ROWS", 10)
    small = run(two, wanted, "small")
    assert pq.ParquetFile(small.out / "train.parquet").num_row_groups == -(-small.counts["rows_train"] // 10)
    assert rows_of(small, "train") == pq.read_table(two / "out" / "train.parquet").to_pylist()


def test_same_bytes_under_any_hash_seed_and_time_zone(two: Path) -> None:
    wanted = spec({"right": {"weight": 1.3}, "left": {"max_rows": 30}})
    here = digests(run(two, wanted).out)
    program = (
        "import sys; from pathlib import Path; from scripts.artifact.stage import Job\n"
        "from scripts.mix.__main__ import build; from scripts.recipe.mix import MixSpec\n"
        "folder, name, text = Path(sys.argv[1]), sys.argv[2], sys.argv[3]\n"
        "spec = MixSpec.model_validate_json(text); out = folder / name; out.mkdir()\n"
        "build(Job(spec, {f'clean/{s}': folder / 'clean' / s for s in spec.sources}, out, folder / name / 'w', 2))\n"
        "(out / 'w').rmdir()\n"
        # pyarrow itself takes a look at pandas where it is installed; nobody else may.
        "bad = {'torch', 'datasets', 'transformers'} & set(sys.modules)\n"
        "assert not bad, bad\n"
    )
    for name, hash_seed, zone in (("a", "0", "UTC"), ("b", "4242", "Asia/Tokyo")):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "TZ": zone, "PYTHONPATH": str(ROOT), "LC_ALL": "C"}
        command = [sys.executable, "-c", program, str(two), name, wanted.model_dump_json()]
        subprocess.run(command, check=True, env=environment)
        assert digests(two / name) == here


def test_caps_are_nested_and_exact() -> None:
    ids = [f"{n}" for n in range(200)]
    small = {row.id for row in take(1, "s", ids, Share(max_rows=20))}
    large = {row.id for row in take(1, "s", reversed(ids), Share(max_rows=21))}
    assert len(small) == 20
    assert len(large) == 21
    assert small < large
    assert {row.id for row in take(2, "s", ids, Share(max_rows=20))} != small
    assert len(take(1, "s", ids, Share(max_rows=1000))) == 200


def test_weights_repeat_or_thin_out() -> None:
    ids = [f"{n:04d}" for n in range(2000)]
    half = take(1, "s", ids, Share(weight=0.5))
    assert {row.id for row in half} == {row.episode for row in half}
    assert 900 < len(half) < 1100  # 1,000 expected, standard deviation 22
    more = take(1, "s", ids, Share(weight=2.5))
    assert len(more) == 4000 + len(half)
    assert {row.episode for row in more if row.id.endswith("#3")} == {row.episode for row in half}
    assert more[:2] == [Row("s", "0000", "0000"), Row("s", "0000", "0000#2")]
    assert len({row.id for row in more}) == len(more)


def test_repeats_of_a_held_out_conversation_are_not_trained() -> None:
    rows = {"s": take(1, "s", [f"{n}" for n in range(300)], Share(weight=3))}
    found = split(1, rows, 0.2, "hash")
    held = {row.episode for row in found.validation}
    assert held
    assert not held & {row.episode for row in found.train}
    assert len(held) == len(found.validation)
    assert len(found.train) == 3 * (300 - len(held))


def test_every_mixture_of_a_seed_holds_out_the_same_conversations(two: Path) -> None:
    alone = run(two, spec({"left": {}}), "alone")
    both = run(two, spec({"right": {}, "left": {"max_rows": 50}}, mixture="both"), "both")
    held = {r["id"] for r in rows_of(alone, "validation")}
    trained = {r["id"] for r in rows_of(both, "train") if r["source"] == "left"}
    assert not held & trained
    more = split(7, {"left": take(7, "left", [f"{n:04d}" for n in range(60)], Share())}, 0.3, "hash")
    assert held < {row.id for row in more.validation}


def test_file_tail_holds_out_the_last_rows_of_the_last_source(two: Path) -> None:
    job = run(two, spec({"right": {}, "left": {}}, val_split="file_tail"))
    written = [(r["source"], r["id"]) for part in ("train", "validation") for r in rows_of(job, part)]
    assert written == [(source, f"{n:04d}") for source in ("right", "left") for n in range(60)]
    assert [r["id"] for r in rows_of(job, "validation")] == [f"{n:04d}" for n in range(48, 60)]


def test_recipe_order_comes_from_the_inputs(two: Path) -> None:
    sorted_table = spec({"left": {}, "right": {}}, val_split="file_tail")
    job = Job(sorted_table, {f"clean/{s}": two / "clean" / s for s in ("right", "left")}, two / "o", two / "work", 1)
    job.out.mkdir()
    build(job)
    assert rows_of(job, "train")[0]["source"] == "right"


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 25), min_size=1, max_size=3),
    cap=st.none() | st.integers(1, 30),
    weight=st.sampled_from([1.0, 1.0, 2.0, 3.0]),
    share=st.sampled_from([0.0, 0.2, 0.5]),
    how=st.sampled_from(["hash", "file_tail"]),
)
def test_rows_in_and_out_agree(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], cap: int | None, weight: float, share: float, how: str
) -> None:
    folder = tmp_path_factory.mktemp("mix")
    for number, size in enumerate(sizes):
        clean(folder, f"s{number}", (episode(f"s{number}", n) for n in range(size)))
    shares = {f"s{number}": {"max_rows": cap, "weight": weight} for number in range(len(sizes))}
    wanted = spec(shares, val_set_size=share, val_split=how)
    taken = sum(min(size, cap or size) for size in sizes)
    try:
        job = run(folder, wanted)
    except StageError as error:
        assert "rows" in str(error)
        assert taken < 25  # 25 rows all on one side at 0.2 or 0.5 would be a broken hash
        return
    train, validation = rows_of(job, "train"), rows_of(job, "validation")
    keys = [(r["source"], r["id"]) for r in train + validation]
    assert len(set(keys)) == len(keys)
    assert len({(s, i.split("#")[0]) for s, i in keys}) == taken
    if how == "file_tail":
        assert len(keys) == taken * weight
    else:
        assert len(train) == weight * (taken - len(validation))
    assert bool(validation) == (share > 0)
    facts = json.loads((job.out / "mix.json").read_text())["sources"].values()
    assert sum(f["rows_train"] for f in facts) == len(train)
    assert sum(f["rows_validation"] for f in facts) == len(validation)
    assert [f["episodes_in"] for f in facts] == sizes


def test_identity_decides_the_bytes(two: Path) -> None:
    plain, other = spec({"left": {"missing": "stop"}}), spec({"left": {"missing": "reweight"}})
    assert plain.identity() == other.identity()
    assert digests(run(two, plain).out) == digests(run(two, other, "other").out)
    # Printed in the payload, so it must be in the key.
    shown = spec({"left": {"target_percent": 3.5}})
    assert shown.identity() != plain.identity()
    assert digests(run(two, shown, "shown").out) != digests(two / "out")
    for changed in ({"seed": 8}, {"val_set_size": 0.2}, {"val_split": "file_tail"}, {"missing_sources": ["x"]}):
        assert spec({"left": {}}, **changed).identity() != plain.identity()


def test_missing_sources_and_targets_are_recorded(two: Path) -> None:
    missing = {"missing_sources": ["forums", "stories"], "missing_percent": {"forums": 24.0}}
    job = run(two, spec({"left": {"target_percent": 24.1}, "right": {}}, **missing))
    mix = json.loads((job.out / "mix.json").read_text())
    assert mix["missing_sources"] == ["forums", "stories"]
    assert [f["target_percent"] for f in mix["sources"].values()] == [24.1, None]
    card = (job.out / "README.md").read_text()
    assert "(`missing: reweight`): forums (24 % of the original), stories;\ntogether 24 % of the original" in card
    assert "| 24.1 |" in card


def test_card_loads_with_datasets(two: Path) -> None:
    run(two, spec({"left": {}, "right": {}}))
    run(two, spec({"left": {}}, val_set_size=0), "none")
    program = (
        "import sys, datasets; datasets.disable_progress_bars()\n"
        "d = datasets.load_dataset(sys.argv[1]); print({k: len(v) for k, v in d.items()})\n"
        "print(d['train'][0]['segments'][-1]['trained'])\n"
    )
    for name in ("out", "none"):
        environment = {**os.environ, "HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(two / "hf")}
        command = [sys.executable, "-c", program, str(two / name)]
        said = subprocess.run(command, check=True, env=environment, capture_output=True, text=True).stdout
        sizes = {part: pq.read_metadata(two / name / f"{part}.parquet").num_rows for part in ("train", "validation")}
        assert said.splitlines() == [str({part: rows for part, rows in sizes.items() if rows}), "True"]
        assert sizes["validation"] == 0 or name == "out"


def test_episodes_without_answer_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [episode("left", n) for n in range(30)]
    for row in rows[:3]:
        row["turns"] = row["turns"][:1]
    rows[3]["turns"] = []
    rows[4]["turns"].append({"role": "user", "text": "and?"})
    clean(tmp_path, "left", rows)
    job = run(tmp_path, spec({"left": {}}))
    facts = json.loads((job.out / "mix.json").read_text())["sources"]["left"]
    assert (facts["episodes_in"], facts["without_model_turn"], facts["user_turns_cut"]) == (30, 4, 1)
    assert facts["rows_train"] + facts["rows_validation"] == 26


@pytest.mark.parametrize(
    ("rows", "share", "more", "message"),
    [
        ([], {}, {}, "source left gives no row: 0 episodes in"),
        ([episode("left", 1)], {"weight": 1e-9}, {}, "source left gives no row: 1 episodes in, 1 with a model turn"),
        ([episode("left", 1)] * 2, {}, {}, "clean/left: id '0001' comes twice"),
        ([{**episode("left", 1), "id": ""}], {}, {}, "clean/left: an episode without id"),
        ([episode("left", 1), {**episode("left", 2), "id": "0001#2"}], {"weight": 2}, {}, "marks repeats"),
        ([episode("left", n) for n in range(2)], {}, {"val_set_size": 1e-9}, "none of 2 rows is held out"),
        ([episode("left", 1)], {}, {"val_split": "file_tail"}, "all 1 rows are held out"),
        (
            [{**episode("left", 1), "turns": [{"role": "model", "text": " "}]}],
            {},
            {"val_set_size": 0},
            "clean/left: episode '0001': turn 1 is a blank model turn",
        ),
    ],
)
def test_bad_input_is_named(
    tmp_path: Path, rows: list[dict[str, Any]], share: dict[str, Any], more: dict[str, Any], message: str
) -> None:
    clean(tmp_path, "left", rows)
    with pytest.raises(StageError, match=message):
        run(tmp_path, spec({"left": share}, **more))


def test_wrong_files_and_inputs_are_named(two: Path) -> None:
    (two / "clean" / "left" / "episodes.parquet").write_bytes(b"not parquet")
    with pytest.raises(StageError, match=r"clean/left: episodes.parquet can't be read"):
        run(two, spec({"left": {}}), "a")
    pq.write_table(pa.table({"id": ["1"], "system": ["s"]}), two / "clean" / "right" / "episodes.parquet")
    with pytest.raises(StageError, match=r"clean/right: column turns is missing"):
        run(two, spec({"right": {}}), "b")
    (two / "clean" / "right" / "episodes.parquet").unlink()
    with pytest.raises(StageError, match="clean/right: holds no"):
        run(two, spec({"right": {}}), "c")
    with pytest.raises(StageError, match="needs the clean artifacts of left; found none"):
        build(Job(spec({"left": {}}), {}, two, two / "work", 1))


def test_near_duplicates_across_sources_leave_the_longest(tmp_path: Path) -> None:
    words = [f"word{i}" for i in range(60)]

    def told(source: str, number: int, text: str) -> dict[str, Any]:
        row = episode(source, number)
        row["turns"][1]["text"] = text
        row["turns"][0]["text"] = ""
        return row

    def own(number: int) -> str:
        return " ".join(f"own{number}x{i}" for i in range(60))

    clean(tmp_path, "a", [told("a", 1, " ".join(words)), *(told("a", n, own(n)) for n in range(2, 30))])
    clean(tmp_path, "b", [told("b", 1, " ".join([*words, "and more"])), *(told("b", n, own(n)) for n in range(50, 80))])
    off = run(tmp_path, spec({"a": {}, "b": {}}), "off")
    assert off.counts["rows_train"] + off.counts["rows_validation"] == 60
    assert not (off.out / "near_duplicates.jsonl").exists()
    on = run(tmp_path, spec({"a": {}, "b": {}}, near_duplicates=0.8), "on")
    assert on.counts["rows_train"] + on.counts["rows_validation"] == 59
    (line,) = map(json.loads, (on.out / "near_duplicates.jsonl").read_text(encoding="utf-8").splitlines())
    assert [line[key] for key in ("source", "id", "kept_source", "kept")] == ["a", "0001", "b", "0001"]
    assert 0.9 < line["similarity"] < 1
    facts = json.loads((on.out / "mix.json").read_text(encoding="utf-8"))
    assert facts["near_duplicates"] == {"threshold": 0.8, "dropped": {"a": 1}, "pairs": {"a < b": 1}}
    assert facts["sources"]["a"]["episodes_in"] == 29
    assert "as alike as 0.8: a 1." in (on.out / "README.md").read_text(encoding="utf-8")
    # The order of the sources doesn't decide which row stays.
    other = run(tmp_path, spec({"b": {}, "a": {}}, near_duplicates=0.8), "other")
    assert digests(other.out)["near_duplicates.jsonl"] == digests(on.out)["near_duplicates.jsonl"]


def test_a_source_of_nothing_but_copies_is_named(tmp_path: Path) -> None:
    text = " ".join(f"word{i}" for i in range(60))
    rows = [episode("a", 1), episode("b", 1)]
    for row, more in zip(rows, ("", " and more"), strict=True):
        row["turns"] = [{"role": "model", "text": text + more}]
    clean(tmp_path, "a", rows[:1])
    clean(tmp_path, "b", [rows[1], *(episode("b", n) for n in range(2, 30))])
    with pytest.raises(StageError, match="source a gives no row: 1 episodes in, 1 with a model turn, of which 1 resem"):
        run(tmp_path, spec({"a": {}, "b": {}}, near_duplicates=0.8))
