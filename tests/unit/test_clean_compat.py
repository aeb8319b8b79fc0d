"""Defects of the original builder, each behind its switch, and never the minors gate."""

import itertools
import json
import math
import os
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from scripts.artifact.stage import Job, StageError
from scripts.clean.adapters.aidungeon import delayed_turns, story_turns
from scripts.clean.adapters.pippa import HOLD_BACK
from scripts.clean.episode import Turn
from scripts.clean.lexicon import folded_words, load_lexicon
from scripts.clean.refusals import refusal_in
from scripts.clean.substrings import SUBSTRINGS, substring_in
from scripts.clean.wording import MAX_VARIANTS, Wording, expand
from scripts.mix.__main__ import build as build_mix
from scripts.mix.original import WINDOW_TOKENS, _tokens, windowed
from scripts.recipe.compat import CleanCompat, Compat, MixCompat
from scripts.recipe.graph import Graph
from scripts.recipe.load import load_recipe
from scripts.recipe.mix import MixSpec
from tests.conftest import ROOT
from tests.unit.clean_tools import NEUTRAL, Result, jsonl, run, said

REAL = Path(os.environ["ATELIER_REAL_DATA"]) / "text" / "text_adventures.txt"


def under(folder: Path, switch: str, read: dict[str, Any], files: dict[str, str | bytes], **more: Any) -> Result:
    return run(folder, read, files, compat={switch: True}, **more)


def chat(*texts: str) -> dict[str, Any]:
    return {"conversations": [{"from": "gpt" if i % 2 else "human", "value": t} for i, t in enumerate(texts)]}


# --- the recipe's side --------------------------------------------------------


def test_original_is_all_switches_and_each_goes_where_it_matters() -> None:
    every = Compat.model_validate("original")
    assert every.on == list(Compat.model_fields) and len(every.on) == 10
    assert every.for_source("openorca").on == ["orca_refusals", "refusal_list", "dedup", "orca_cap"]
    assert every.for_source("aidungeon").on == ["aidungeon_flush", "refusal_list", "dedup", "rng"]
    assert every.for_mix({"a": "pippa", "b": "openorca"}) == MixCompat(first_rows=["b"], window=True)
    reached = {name for adapter in ADAPTERS for name in every.for_source(adapter).on}
    assert reached | {"window"} == set(every.on), "a switch that no job obeys"
    with pytest.raises(ValidationError, match="found 'orginal'; allowed: original, or a table of orca_refusals"):
        Compat.model_validate("orginal")
    with pytest.raises(ValidationError):
        Compat.model_validate({"minors_gate": False})


ADAPTERS = ("aidungeon", "airoboros", "forum", "generic", "guess_instruction", "openorca", "pippa", "sillytavern")
ADAPTERS += ("sharegpt", "stories")


def test_a_recipe_passes_its_switches_to_jobs(tmp_path: Path) -> None:
    own = tmp_path / "compat.yaml"
    own.write_text("compat: original\n")
    plain, original = (Graph(load_recipe(files, ROOT)) for files in ([DEMO], [DEMO, own]))
    for artifact, job in original.jobs.items():
        before = plain.jobs[artifact].spec.identity()
        # A release carries the recipe itself, so that it names the switches too.
        if job.stage in ("clean", "mix", "release"):
            assert job.spec.identity() != before
        else:
            assert job.spec.identity() == before
    assert original.jobs[("mix", "instruct")].spec.compat.first_rows == ["demo-openorca"]  # type: ignore[attr-defined]


DEMO = ROOT / "config" / "demo.yaml"


# --- clean --------------------------------------------------------------------


def test_the_gate_stays_on(tmp_path: Path) -> None:
    rows = jsonl(chat("zorble", "quimple"), chat("a", "b"))
    every = dict.fromkeys(CleanCompat.model_fields, True)
    result = run(tmp_path, {"adapter": "sharegpt"}, {"a.jsonl": rows}, NEUTRAL, compat=every)
    assert result.reasons == ["minors_gate"] and len(result.rows) == 1
    assert all(count["rejected"] == {"minors_gate": 1} for count in result.audit["compat"].values())


def test_dedup_and_the_differences_in_the_audit(tmp_path: Path) -> None:
    rows = jsonl(chat("a", "b"), chat("a", "b"), chat("a", "b", "c", "d"))
    plain = run(tmp_path / "x", {"adapter": "sharegpt"}, {"a.jsonl": rows})
    assert "compat" not in plain.audit and len(plain.rows) == 1
    result = under(tmp_path / "y", "dedup", {"adapter": "sharegpt"}, {"a.jsonl": rows})
    assert len(result.rows) == 2 and result.audit["rejected"] == {"exact_duplicate": 1}
    found = result.audit["compat"]
    assert list(found) == ["all", "dedup", "none"]
    assert found["none"] == {
        "rows_out": 1,
        "chars": plain.audit["chars"],
        "rows_more": 0,
        "chars_more": 0,
        "rejected": plain.audit["rejected"],
    }
    assert (found["dedup"]["rows_more"], found["dedup"]["chars_more"]) == (1, 2) and found["all"] == found["dedup"]


def orca(folder: Path) -> bytes:
    answers = ["I'm sorry, but I can't help with that request.", "It is illegal to fish here, says the guard.", "Fine."]
    columns = {"id": ["c", "a", "b"], "system_prompt": [""] * 3, "question": ["1", "2", "3"], "response": answers}
    pq.write_table(pa.table(columns), folder / "orca")
    return (folder / "orca").read_bytes()


def test_refusals_of_openorca(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"o.parquet": orca(tmp_path)}
    read = {"adapter": "openorca"}
    assert [r["line"] for r in run(tmp_path / "a", read, files).rejected] == [1]
    assert under(tmp_path / "b", "orca_refusals", read, files).rejected == []
    assert [r["line"] for r in under(tmp_path / "c", "refusal_list", read, files).rejected] == [1, 2]
    both = run(tmp_path / "d", read, files, compat={"orca_refusals": True, "refusal_list": True})
    assert both.audit["rejected"] == {"refusal": 2} and set(both.audit["compat"]) == {
        "none",
        "orca_refusals",
        "refusal_list",
        "all",
    }


def test_substrings_are_plain_and_drop_fiction() -> None:
    assert len(set(SUBSTRINGS)) == len(SUBSTRINGS) and all(part == part.lower() for part in SUBSTRINGS)
    assert substring_in("The BIAS of the fabric") == "bias" and refusal_in("The BIAS of the fabric") is None
    if not REAL.is_file():
        pytest.skip(f"real file {REAL} is not here; set ATELIER_REAL_DATA")
    told = [turn.text for story in stories() for turn in story_turns(story) if turn.role == "model"]
    listed = sum(substring_in(text) is not None for text in told)
    assert listed > 10 * sum(refusal_in(text) is not None for text in told) and listed > 0.005 * len(told)


def stories() -> list[str]:
    return [story.split("<|endoftext|>")[0] for story in REAL.read_text("utf-8").split("<|startoftext|>")[1:]]


def test_aidungeon_flush(tmp_path: Path) -> None:
    words = " ".join(["rain"] * 150)
    story = f"One. {words}\n> go\nTwo. {words}\n> wait\nlost"
    assert [turn.role for turn in delayed_turns(story)] == ["user", "model", "user"]
    assert delayed_turns(story)[1].text.startswith("One.") and "Two." in delayed_turns(story)[1].text
    text = "".join(f"<|startoftext|>{part} {story}<|endoftext|>\n" for part in ("First", "Second", "Third"))
    result = under(tmp_path, "aidungeon_flush", {"adapter": "aidungeon"}, {"t.txt": text})
    assert len(result.rows) == 2 and result.audit["rejected"] == {"original_defect": 1}
    assert all("lost" not in turn["text"] for row in result.rows for turn in row["turns"])
    assert result.audit["compat"]["none"]["rows_out"] == 3 and result.audit["compat"]["all"]["rows_more"] == -1


def test_aidungeon_flush_has_the_measured_extent() -> None:
    """20.2 % of words lost, 27.8 % of stories without a model turn (data reference, 963 stories; here 600 of them)."""
    if not REAL.is_file():
        pytest.skip(f"real file {REAL} is not here; set ATELIER_REAL_DATA")
    told = lost = silent = 0
    for story in stories():
        turns = delayed_turns(story)
        narrative = sum(len(line.split()) for line in story.split("\n") if not line.startswith(">"))
        lost += narrative - sum(len(turn.text.split()) for turn in turns if turn.role == "model")
        told += len(story.split())
        silent += all(turn.role == "user" for turn in turns)
    assert 0.17 < lost / told < 0.22 and 0.22 < silent / len(stories()) < 0.30


def test_story_tail(tmp_path: Path) -> None:
    body = 'story_title,story\nFog,"' + "word " * 20 + '\n\nEnd."\nMooch,"' + "word " * 20 + '"\nOOC talk,"hi"\n'
    read = {"adapter": "stories", "chunk_words": 15}
    plain = run(tmp_path / "a", read, {"s.csv": body})
    assert sorted(len(r["turns"]) for r in plain.rows) == [2, 4] and plain.reasons == ["out_of_character"]
    original = under(tmp_path / "b", "story_tail", read, {"s.csv": body})
    assert [len(r["turns"]) for r in original.rows] == [2] and original.reasons == ["out_of_character"] * 2


def test_cai_prompt(tmp_path: Path) -> None:
    lexicon, words = load_lexicon(), folded_words(HOLD_BACK)
    assert not lexicon.adult(words) and lexicon.sexual.isdisjoint(words) and lexicon.minor.isdisjoint(words)
    row = {"submission_timestamp": 1, "bot_name": "Mira", "conversation": [{"message": "Hi", "is_human": False}]}
    result = under(tmp_path, "cai_prompt", {"adapter": "pippa"}, {"a.jsonl": jsonl(row)})
    assert "Mira is reluctant" in result.rows[0]["system"] and result.audit["compat"]["all"]["chars_more"] > 50


def test_template_choice() -> None:
    templates = ("one %{a|b|c|d} %{x|y|z}", "two", "three")
    assert len(expand(templates[0])) == 12 and len(expand("%{a|b}" * 10)) == MAX_VARIANTS
    fair, even = Wording(1), Wording(1, CleanCompat(template_choice=True))
    shares = []
    for wording in (fair, even):
        chosen = [wording.choose(templates, "t", n) for n in range(2000)]
        assert set(chosen) == {text for template in templates for text in expand(template)}
        shares.append(sum(text.startswith("one") for text in chosen) / 2000)
    assert abs(shares[0] - 1 / 3) < 0.04 and abs(shares[1] - 12 / 14) < 0.04


def test_rng_makes_a_row_depend_on_those_before(tmp_path: Path) -> None:
    rows = [{"instruction": f"Task {i}", "response": f"Text {i}"} for i in range(60)]
    read = {"adapter": "guess_instruction"}
    systems: dict[str, dict[str, str]] = {}
    for name, part in (("whole", rows), ("part", rows[1:])):
        for switch in ("rng", "template_choice"):
            result = under(tmp_path / f"{name}-{switch}", switch, read, {"a.jsonl": jsonl(*part)})
            systems[f"{name}-{switch}"] = {said(r)[1][1]: r["system"] for r in result.rows if said(r)[1][1] != "Task 0"}
    assert systems["whole-template_choice"] == systems["part-template_choice"]
    assert systems["whole-rng"] != systems["part-rng"]
    again = under(tmp_path / "again", "rng", read, {"a.jsonl": jsonl(*rows)})
    assert {said(r)[1][1]: r["system"] for r in again.rows if said(r)[1][1] != "Task 0"} == systems["whole-rng"]


# --- mix ----------------------------------------------------------------------


def test_window_has_the_measured_extent() -> None:
    """91 % of 60-turn chats of 45-word turns cut, 47 % of turns lost, 49 % over the budget (data reference, 1.3)."""
    drawn = random.Random(5)
    cut = lost = over = 0
    for _ in range(1500):
        turns = []
        for index in range(60):
            words = max(1, round(-45 * math.log(1 - drawn.random())))
            turns.append(("model" if index % 2 else "user", f"{index} " + "w " * (words - 1)))
        left = windowed(turns)
        last = int((left[-1][1] or "").split()[0]) + 1
        cut += last < 60
        lost += 60 - last
        totals = itertools.accumulate(_tokens(turn) for turn in turns)
        first_over = next((i for i, total in enumerate(totals) if total > WINDOW_TOKENS), 59)
        over += last > first_over
    assert 0.87 < cut / 1500 < 0.95 and 0.44 < lost / 90_000 < 0.52 and 0.44 < over / 1500 < 0.55


def test_window_on_small_chats() -> None:
    def turn(index: int, words: int) -> tuple[str, str | None]:
        return "model" if index % 2 else "user", "w " * words

    short = [turn(i, 10) for i in range(6)]
    assert windowed(short) == short
    chats = [turn(i, 100) for i in range(40)]  # 170 tokens each: the 12th is the first too many, one less fits
    assert windowed(chats) == chats[:10]
    heavy = [turn(0, 10), turn(1, 600), turn(2, 10), turn(3, 600), turn(4, 5), turn(5, 5)]
    assert windowed(heavy) == heavy[1:4], "2,057 tokens: over the budget, since the oldest turn was a short one"
    assert windowed([turn(0, 5000), turn(1, 5)]) == []


def mix(folder: Path, compat: dict[str, Any], max_rows: int | None = None) -> dict[str, Any]:
    clean = folder / "clean"
    if not clean.is_dir():
        clean.mkdir()
        turns = [[Turn("user", "w " * 100)._asdict(), Turn("model", f"answer {n}")._asdict()] * 15 for n in range(30)]
        rows = {"id": [f"{n * 37 % 30:02}" for n in range(30)], "source": ["orca"] * 30, "label": ["general"] * 30}
        rows |= {"system": [""] * 30, "turns": turns, "file": ["f"] * 30, "line": list(range(1, 31))}
        pq.write_table(pa.table(rows), clean / "episodes.parquet")
    out = folder / f"out{len(list(folder.glob('out*')))}"
    out.mkdir()
    sources = {"orca": {"max_rows": max_rows} if max_rows else {}}
    values = {"mixture": "m", "val_set_size": 0.1, "seed": 3, "sources": sources, "compat": compat}
    build_mix(Job(MixSpec.model_validate(values), {"clean/orca": clean}, out, folder / "work", 1))
    ids = [i for part in ("train", "validation") for i in pq.read_table(out / f"{part}.parquet")["id"].to_pylist()]
    content: dict[str, Any] = json.loads((out / "mix.json").read_text())
    return {"ids": sorted(ids), "card": (out / "README.md").read_text(), **content}


def test_orca_cap_takes_one_row_too_many_of_the_files_beginning(tmp_path: Path) -> None:
    plain, original = mix(tmp_path, {}, 12), mix(tmp_path, {"first_rows": ["orca"]}, 12)
    assert len(plain["ids"]) == 12 and "compat" not in plain
    assert original["ids"] == sorted(f"{n * 37 % 30:02}" for n in range(13)) != plain["ids"]
    assert list(original["compat"]) == ["none", "orca_cap", "all"]
    assert original["compat"]["orca_cap"]["rows_more"] == 1 and "orca_cap" in original["card"]


def test_orca_cap_needs_places(tmp_path: Path) -> None:
    mix(tmp_path, {})
    table = pq.read_table(tmp_path / "clean" / "episodes.parquet").drop_columns(["file", "line"])
    pq.write_table(table, tmp_path / "clean" / "episodes.parquet")
    with pytest.raises(StageError, match=r"lacks `line`, which compat\.orca_cap needs"):
        mix(tmp_path, {"first_rows": ["orca"]}, 12)


def test_places_are_written_for_orca_cap_alone(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"o.parquet": orca(tmp_path)}
    result = under(tmp_path / "a", "orca_cap", {"adapter": "openorca"}, files)
    assert sorted((row["file"], row["line"]) for row in result.rows) == [("o.parquet", 2), ("o.parquet", 3)]
    assert "line" not in run(tmp_path / "b", {"adapter": "openorca"}, files).rows[0]


def test_window_in_the_mixture(tmp_path: Path) -> None:
    plain, original = mix(tmp_path, {}), mix(tmp_path, {"window": True})
    assert original["ids"] == plain["ids"]
    none, alone = original["compat"]["none"], original["compat"]["window"]
    written = [s["chars_train"] + s["chars_validation"] for m in (plain, original) for s in m["sources"].values()]
    assert [none["chars"], alone["chars"]] == written and alone["chars_more"] == written[1] - written[0] < 0
