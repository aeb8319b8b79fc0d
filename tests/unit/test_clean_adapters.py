"""Each adapter on a small file of its format, in our own words."""

import csv
import io
import itertools
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts.artifact.stage import StageError
from scripts.clean.adapters.aidungeon import story_turns
from scripts.clean.adapters.airoboros import split_speakers
from scripts.clean.adapters.forum import post_text
from scripts.clean.adapters.guess_instruction import SYSTEMS
from scripts.clean.adapters.pippa import persona_text
from scripts.clean.adapters.stories import story_pieces
from scripts.clean.episode import Turn
from scripts.clean.generators import by_openai
from scripts.clean.names import USER_NAMES
from scripts.clean.wording import expand
from tests.unit.clean_tools import NEUTRAL, jsonl, run, said


def table(header: tuple[str, ...], *rows: tuple[str, ...]) -> str:
    """Return a CSV text."""
    out = io.StringIO()
    csv.writer(out).writerows([header, *rows])
    return out.getvalue()


def parquet(path: Path, columns: dict[str, Any]) -> bytes:
    """Return the bytes of a parquet file."""
    pq.write_table(pa.table(columns), path)
    return path.read_bytes()


# --- pippa -------------------------------------------------------------------


def pippa(*messages: str, when: int = 1_600_000_000_000, **more: Any) -> dict[str, Any]:
    conversation = [{"message": m, "is_human": i % 2 == 1} for i, m in enumerate(messages)]
    return {"submission_timestamp": when, "bot_id": "b", "bot_name": "Mira", "conversation": conversation, **more}


def test_pippa_names_and_persona(tmp_path: Path) -> None:
    definitions = (
        "{{char}} keeps bees.\nLikes: tea\n{{char}}: Hello!\n{{user}}: Hi.\nEND_OF_DIALOG\nMira: Bye\nHobby: chess"
    )
    row = pippa("Hi {{user}}, I am {{char}}.", "[NAME_IN_MESSAGE_REDACTED] waves", "Welcome, [REDACTED]!")
    row |= {"bot_description": "A beekeeper.", "bot_definitions": definitions, "categories": None}
    (episode,) = run(tmp_path, {"adapter": "pippa"}, {"a.jsonl": jsonl(row)}).rows
    greeting, waving, welcome = (text for _, text in said(episode))
    name = waving.removesuffix(" waves")
    assert name in USER_NAMES
    assert greeting == f"Hi {name}, I am Mira." and welcome == f"Welcome, {name}!"
    for part in ("Mira", "A beekeeper.", "Mira keeps bees.", "Likes: tea", "Hobby: chess"):
        assert part in episode["system"]
    for part in ("Hello!", "Bye", "END_OF_DIALOG", "{{"):
        assert part not in episode["system"]


def test_pippa_persona_blocks() -> None:
    assert persona_text("Calm.\n{{char}}: a\nmore of it\nEND_OF_DIALOG\nTall.", "Mira") == "Calm.\nTall."
    assert persona_text("START:text_remaining: 12\nCalm.", "Mira") == "Calm."
    assert persona_text("{{char}}: a\nMira : b\n{{random_user_1}}: c", "Mira") == ""
    assert persona_text("Dr. (A+B): a\nCalm.", "Dr. (A+B)") == "Calm."


def test_pippa_cutoff(tmp_path: Path) -> None:
    limit = 1673049600000
    rows = jsonl(pippa("a", "b", "c", when=limit - 1), pippa("d", "e", "f", when=limit))
    result = run(tmp_path / "x", {"adapter": "pippa"}, {"a.jsonl": rows})
    assert result.audit["rejected"] == {"after_cutoff": 1} and len(result.rows) == 1
    later = {"adapter": "pippa", "submitted_before": limit + 1}
    assert len(run(tmp_path / "y", later, {"a.jsonl": rows}).rows) == 2


def test_pippa_growing_upload_keeps_the_longest(tmp_path: Path) -> None:
    short = pippa("Hi {{user}}", "b", "c")
    long = pippa("Hi {{user}}", "b", "c", "d", "e", when=1_600_000_000_999)
    result = run(tmp_path, {"adapter": "pippa"}, {"a.jsonl": jsonl(short, long, short)})
    assert len(result.rows) == 1 and len(result.rows[0]["turns"]) == 5
    assert result.audit["rejected"] == {"exact_duplicate": 1, "prefix_duplicate": 1}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"submission_timestamp": "2022"}, "submission_timestamp"),
        ({"submission_timestamp": None}, "submission_timestamp"),
        ({"conversation": [{"message": "x", "is_human": 1}]}, "conversation[0].is_human"),
        ({"conversation": [{"message": None, "is_human": True}]}, "message: found nothing"),
        ({"conversation": {}}, "conversation: found an object"),
        ({"bot_name": 3}, "bot_name: found a number"),
    ],
)
def test_pippa_malformed(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    result = run(tmp_path, {"adapter": "pippa"}, {"a.jsonl": jsonl(pippa("a", "b", "c"), pippa("a") | change)})
    assert result.reasons == ["malformed"] and words in result.rejected[0]["detail"] and result.rejected[0]["line"] == 2


# --- openorca ----------------------------------------------------------------


def test_openorca(tmp_path: Path) -> None:
    columns: dict[str, Any] = {
        "id": ["niv.1", "t0.2", None, "flan.4"],
        "system_prompt": ["Think.", None, "", "x"],
        "question": ["Q1", "Q2", "Q3", None],
        "response": ["A1", "A2", "A3", "A4"],
    }
    columns["question"] = pa.array(columns["question"]).dictionary_encode()
    result = run(tmp_path, {"adapter": "openorca"}, {"a.parquet": parquet(tmp_path / "p", columns)})
    assert sorted((r["system"], *said(r)) for r in result.rows) == [
        ("", ("user", "Q2"), ("model", "A2")),
        ("", ("user", "Q3"), ("model", "A3")),
        ("Think.", ("user", "Q1"), ("model", "A1")),
    ]
    assert result.rejected[0] | {"id": ""} == {
        "line": 4,
        "id": "",
        "reason": "malformed",
        "detail": "question: found nothing, needs a text",
    }


def test_openorca_bad_bytes_and_columns(tmp_path: Path) -> None:
    good = {"system_prompt": ["", ""], "response": ["A", "B"]}
    broken = pa.array([b"Q\xff", b"Q"], pa.binary()).view(pa.string())
    raw = parquet(tmp_path / "p", {**good, "question": broken})
    result = run(tmp_path / "x", {"adapter": "openorca"}, {"a.parquet": raw})
    assert result.reasons == ["encoding"] and len(result.rows) == 1
    for index, (columns, words) in enumerate(
        [(good, "no column 'question'"), ({**good, "question": [1, 2]}, "has type int64; needs text")]
    ):
        raw = parquet(tmp_path / "p", columns)
        with pytest.raises(StageError, match=words):
            run(tmp_path / str(index), {"adapter": "openorca"}, {"a.parquet": raw})
    for index, bad in enumerate((b"PAR1 nothing", raw[: len(raw) // 2])):
        with pytest.raises(StageError, match="not a readable parquet file"):
            run(tmp_path / f"bad{index}", {"adapter": "openorca"}, {"a.parquet": bad})


# --- sharegpt and JSON files -------------------------------------------------


def test_sharegpt_array_and_lines_agree(tmp_path: Path) -> None:
    rows = [
        {
            "id": f"i{n}",
            "conversations": [{"from": "human", "value": f"q{n} \u00e9"}, {"from": "gpt", "value": "a" * n}],
        }
        for n in range(1, 40)
    ]
    bodies = [jsonl(*rows), json.dumps(rows), "\ufeff\n " + json.dumps(rows, indent=2, ensure_ascii=False) + "\n\n"]
    results = [run(tmp_path / str(i), {"adapter": "sharegpt"}, {"a.json": body}) for i, body in enumerate(bodies)]
    assert results[0].rows == results[1].rows == results[2].rows and len(results[0].rows) == 39


def test_json_array_across_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[Any] = [123456, {"conversations": [{"from": "human", "value": "\u00e9\U0001f600" * 30}]}, 7, "x"]
    rows += [{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": f"a{n}"}]} for n in range(9)]
    for size in (1, 2, 3, 7, 64):
        monkeypatch.setattr("scripts.clean.rows._CHUNK", size)
        body = json.dumps(rows, ensure_ascii=False)
        result = run(tmp_path / str(size), {"adapter": "sharegpt"}, {"a.json": body})
        assert len(result.rows) == 9 and result.audit["rows_in"] == 13
        assert [r["line"] for r in result.rejected] == [1, 2, 3, 4]


def test_bad_utf8_and_long_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.clean.rows.MAX_ROW_BYTES", 200)
    good = jsonl({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}).encode()
    body = good + b'{"x": "\xff"}\n\n' + b"y" * 5000 + b"\n" + good.replace(b"q", b"r")
    result = run(tmp_path, {"adapter": "sharegpt"}, {"a.jsonl": body})
    assert [(r["line"], r["reason"]) for r in result.rejected] == [(2, "encoding"), (4, "malformed")]
    assert len(result.rows) == 2


# --- airoboros, alpaca, guess the instruction --------------------------------


def test_airoboros(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Name a tree.", "response": "ASSISTANT: An oak."},
        {"instruction": "Be brief.\nUSER: Hi\nASSISTANT: Hello\nUSER: Name a bird.\nASSISTANT:", "response": "A wren."},
        {"instruction": "Who are you?", "response": "I am Airoboros."},
        {"instruction": "x"},
    ]
    result = run(tmp_path, {"adapter": "airoboros"}, {"a.jsonl": jsonl(*rows)})
    assert sorted((r["system"], said(r)) for r in result.rows) == [
        ("", [("user", "Name a tree."), ("model", "An oak.")]),
        ("Be brief.", [("user", "Hi"), ("model", "Hello"), ("user", "Name a bird."), ("model", "A wren.")]),
    ]
    assert result.audit["rejected"] == {"malformed": 1, "names_itself": 1}
    assert split_speakers("Sum 1 and 2.\nASSISTANT:") == ("", [Turn("user", "Sum 1 and 2."), Turn("model", "")])


def test_alpaca(tmp_path: Path) -> None:
    rows = [
        {
            "id": "t1",
            "instruction": "Add.",
            "instances": [{"input": "1 2", "output": "3"}, {"input": "", "output": "?"}],
        },
        {"instruction": "Say hi.", "output": "Hi."},
        {"instruction": "Broken", "instances": [{"output": "fine"}, {"output": 3}]},
        {"instruction": "Broken", "instances": []},
    ]
    result = run(tmp_path, {"adapter": "alpaca"}, {"a.jsonl": jsonl(*rows)})
    assert sorted(said(r) for r in result.rows) == [
        [("user", "Add."), ("model", "?")],
        [("user", "Add.\n\n1 2"), ("model", "3")],
        [("user", "Say hi."), ("model", "Hi.")],
    ]
    assert [r["line"] for r in result.rejected] == [3, 4]


def test_guess_instruction(tmp_path: Path) -> None:
    dolly = {
        "instruction": "When was it built?",
        "context": "Built in 1887.[3] Array x[3].",
        "response": "In 1887.[12]",
    }
    rows = [{**dolly, "category": "qa"}, {"instruction": "Say {context}.", "response": "{answer} {ask} {context}"}]
    rows += [{"instruction": f"Task {i}", "response": f"Text {i}"} for i in range(40)]
    rows += [{"instruction": "No answer", "response": " "}]
    result = run(tmp_path, {"adapter": "guess_instruction"}, {"a.jsonl": jsonl(*rows)}, near_duplicates=None)
    assert result.reasons == ["blank"]
    by_answer = {said(r)[1][1]: (r["system"], said(r)[0][1]) for r in result.rows}
    asked = by_answer["When was it built?"][1]
    assert "In 1887." in asked and "Built in 1887. Array x[3]." in asked and "[12]" not in asked
    assert "{answer} {ask} {context}" in by_answer["Say {context}."][1]
    assert len({asked.replace(answer.replace("Task", "Text"), "") for answer, (_, asked) in by_answer.items()}) > 3
    systems = [system for system, _ in by_answer.values()]
    assert set(systems) <= {text for template in SYSTEMS for text in expand(template)}
    assert all(any(system in expand(template) for system in systems) for template in SYSTEMS)


# --- aidungeon ---------------------------------------------------------------

STORY = "You wake.\n\nIt rains.\n> You stand up\nThe hut is cold.\n> You light a fire\n> You wait\nIt warms.\n"


def test_aidungeon_order_and_flush() -> None:
    assert story_turns(STORY) == [
        Turn("model", "You wake.\n\nIt rains."),
        Turn("user", "You stand up"),
        Turn("model", "The hut is cold."),
        Turn("user", "You light a fire"),
        Turn("user", "You wait"),
        Turn("model", "It warms."),
    ]


def test_aidungeon_cuts(tmp_path: Path) -> None:
    text = f"<|startoftext|>{STORY}<|endoftext|>\n<|startoftext|>One\n> go\nTwo<|endoftext|>"
    result = run(tmp_path / "a", {"adapter": "aidungeon"}, {"t.txt": text})
    assert sorted(len(r["turns"]) for r in result.rows) == [3, 5] and not result.rejected
    assert all(r["system"] for r in result.rows)
    rest = "<|startoftext|>unfinished <|startoftext|>Three\n> go\nFour<|endoftext|> tail <|startoftext|>x"
    broken = f"lost words\n{text}\n{rest}"
    result = run(tmp_path / "b", {"adapter": "aidungeon"}, {"t.txt": broken})
    assert len(result.rows) == 3 and result.audit["rejected"] == {"malformed": 4}
    assert sorted(result.samples["rejected"]["malformed"]) == ["lost words", "tail", "unfinished", "x"]
    with pytest.raises(StageError, match="is it AI Dungeon"):
        run(tmp_path / "c", {"adapter": "aidungeon"}, {"t.txt": "just text"})


# --- floyd -------------------------------------------------------------------


def test_floyd(tmp_path: Path) -> None:
    data = [{"action": "%", "response": "A cave."}, {"action": "> look", "response": "Dark."}]
    rows = [
        {"name": "Cave", "author": "Ann", "transcript_id": 5, "average_rating": 4.2, "data": data},
        {"name": "Low", "average_rating": 2.9, "data": data},
        {"name": "Unrated", "average_rating": None, "data": [*data, {"action": "dig", "response": "A coin."}]},
        {"name": "Grim", "discretion_advised": True, "data": data},
        {"name": "Bad", "data": [{"action": "look"}]},
    ]
    result = run(tmp_path, {"adapter": "floyd"}, {"floyd.json": json.dumps(rows)})
    assert result.audit["rejected"] == {"adult": 1, "low_rating": 1, "malformed": 1}
    cave = next(r for r in result.rows if "Cave" in r["system"])
    assert said(cave) == [("model", "A cave."), ("user", "look"), ("model", "Dark.")] and "by Ann" in cave["system"]


def test_floyd_single_pretty_object(tmp_path: Path) -> None:
    one = {"name": "Cave", "data": [{"action": "look", "response": "Dark."}]}
    assert len(run(tmp_path, {"adapter": "floyd"}, {"floyd.json": json.dumps(one, indent=2)}).rows) == 1


# --- forum, stories ----------------------------------------------------------

FORUM = ("thread_title", "message_username", "message")


def test_forum(tmp_path: Path) -> None:
    rows = [
        ("The Inn &amp; Co", "ann", "<p>Ann enters.</p><p>It is <b>warm</b>.</p><blockquote>old words</blockquote>"),
        ("Other", "zed", "Hello<br/><br/>World"),
        ("The Inn &amp; Co", "ann", "She sits."),
        ("The Inn &amp; Co", "bob", "RE: The Inn\nBob nods. http://example.org/x\n((brb))\nOOC: lunch"),
        ("The Inn &amp; Co", "ann", "((out of words))"),
        ("", "ann", "no title"),
        ("Other", "kit", "Good day, " + "ha " * 60_000),
    ]
    result = run(
        tmp_path, {"adapter": "forum"}, {"a.csv": table(FORUM, *rows) + "two,columns\n"}, max_turn_chars=200_000
    )
    assert result.reasons == ["malformed"] * 2
    by_first = {said(row)[0][1]: said(row) for row in result.rows}
    # Whoever opens: a thread in which the model opens loses its last, unanswered turn.
    inn = by_first["Ann enters.\n\nIt is warm.\n\nShe sits."]
    assert inn[1:] in ([("model", "Bob nods.")], []) and set(by_first) == {inn[0][1], "Hello\n\nWorld"}
    assert "ann" not in json.dumps(result.rows) and "example.org" not in json.dumps(result.rows)


def test_forum_roles_alternate_and_a_quarter_opens_as_model(tmp_path: Path) -> None:
    rows = [(f"Thread {t}", who, f"{who} post {i}") for t in range(200) for i, who in enumerate(("a", "b", "a", "b"))]
    result = run(tmp_path, {"adapter": "forum"}, {"x.csv": table(FORUM, *rows)})
    first = [r["turns"][0]["role"] for r in result.rows]
    assert len(first) == 200 and 30 <= first.count("model") <= 70
    for row in result.rows:
        roles = [role for role, _ in said(row)]
        assert all(a != b for a, b in itertools.pairwise(roles)) and roles[-1] == "model"


def test_forum_post_text_and_adult_file(tmp_path: Path) -> None:
    assert post_text("a &lt;b&gt;<br>c<script>bad()</script><!-- x --> <i>d") == "a <b>\n\nc d"
    assert post_text("<|user|> text") == "<|user|> text"  # escaped later, for all sources
    rows = [("T", "a", "one"), ("T", "b", "two"), ("T", "a", "three")]
    assert run(tmp_path, {"adapter": "forum"}, {"forum-ERP.csv": table(FORUM, *rows)}).reasons == ["adult"]


def test_forum_bbcode_quotes_and_asides() -> None:
    post = "[b]Mira[/b] nods. [quote=bob;12]old [quote]older[/quote] words[/quote][color=#ff0000]Red[/color] door."
    assert post_text(post) == "Mira nods. Red door."
    assert post_text("[quote]forgotten end<br>She [i]runs[/i].") == "forgotten end\n\nShe runs."
    assert post_text("He waits[/quote] at the [url=http://example.org/a b]gate[/url].") == "He waits at the gate."
    assert post_text("A map: [img]http://example.org/x.png[/img] here, x[3], [sic].") == "A map: here, x[3], [sic]."
    assert post_text("[spoiler=end]He wins.[/spoiler] She laughs ((brb (soon) )) and [OOC: lunch] goes on.") == (
        "He wins. She laughs and goes on."
    )
    assert post_text("(OOC: back!)<br>((long<br>aside))<br>OOC I am late") == "aside))"
    deep = "[quote]" * 20_000 + "x" + "[/quote]" * 20_000 + "y"
    assert post_text(deep) == "y"


def test_forum_titles_out_of_character(tmp_path: Path) -> None:
    rows = [(title, who, f"{title} {who}") for title in ("The Mooch", "OOC chat", "Inn [ooc]") for who in "aba"]
    result = run(tmp_path, {"adapter": "forum"}, {"x.csv": table(FORUM, *rows)})
    assert result.reasons == ["out_of_character"] * 2 and len(result.rows) == 1


def test_stories_of_a_web_page(tmp_path: Path) -> None:
    story = "<p>It rains &amp; pours.</p><script>bad()</script><p>She <i>waits</i>.</p>"
    result = run(tmp_path, {"adapter": "stories"}, {"s.csv": table(("story_title", "story"), ("Rain", story))})
    assert said(result.rows[0])[1] == ("model", "It rains & pours.\n\nShe waits.")
    plain = table(("story_title", "story"), ("Sum", "If a < b and b > c, x<y>z & so on."))
    kept = run(tmp_path / "p", {"adapter": "stories"}, {"s.csv": plain})
    assert said(kept.rows[0])[1] == ("model", "If a < b and b > c, x<y>z & so on.")


def test_stories(tmp_path: Path) -> None:
    header = ("story_title", "story_author", "story_tags", "story_summary", "story")
    words = " ".join(["word"] * 20)
    rows = [("Fog", "x", "sea, calm", "A boat.", f"{words}\n\n{words}\n\nEnd."), ("Empty", "x", "", "", " ")]
    read = {"adapter": "stories", "chunk_words": 15}
    result = run(tmp_path, read, {"s.csv": "\ufeff" + table(header, *rows)})
    (row,) = result.rows
    asked, first, go_on, second, _, last = (text for _, text in said(row))
    assert 'called "Fog"' in asked and "sea, calm" in asked and "A boat." in asked and "x" not in asked.split()
    assert (first, second, last) == (words, words, "End.") and go_on
    assert result.reasons == ["unanswered"]
    for mark, called in ((";", ";"), ("\t", "tabs")):
        with pytest.raises(StageError, match=f"s.csv: separated by {called}, needs commas; save it"):
            run(tmp_path / called, read, {"s.csv": mark.join(header) + f"\n{mark * 4}\n"})
    with pytest.raises(StageError, match=r"among s\.txt; .* plain text comes as a CSV of stories: docs/data\.md"):
        run(tmp_path / "plain", read, {"s.txt": "Once."})
    with pytest.raises(StageError, match="no column 'story'"):
        run(tmp_path / "bad", read, {"s.csv": "story_title,text\na,b\n"})
    pieces = story_pieces("a b\nc d e\n\nf", 2)
    assert pieces == ["a b", "c d e", "f"]


def test_stories_mojibake(tmp_path: Path) -> None:
    wrong = "It\u00e2\u20ac\u2122s late."
    body = table(("story_title", "story"), ("Night", wrong))
    assert said(run(tmp_path, {"adapter": "stories"}, {"s.csv": body}).rows[0])[1] == ("model", "It\u2019s late.")


# --- sillytavern -------------------------------------------------------------


def tavern(name: str, mes: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "mes": mes, **more}


def test_sillytavern(tmp_path: Path) -> None:
    header = {"user_name": "Ann", "character_name": "Mira", "chat_metadata": {"note_prompt": "{{char}} is calm."}}
    files: dict[str, str | bytes] = {
        "a.jsonl": jsonl(
            header,
            tavern("Mira", "Hi {{user}}!", is_user=False),
            tavern("Ann", "Hello."),
            tavern("System", "Chat saved.", is_system=True, is_user=False),
            tavern("Mira", "Tea?", is_user=False),
            {"user_name": "You", "character_name": "Tom"},
            tavern("You", "Hey Tom"),
            tavern("Tom", "Hey."),
        ),
        "b.jsonl": jsonl(tavern("You", "Who?"), tavern("Ava", "Ava."), [1], tavern("You", "x"), tavern("Ava", "y")),
        "c.jsonl": jsonl(header),
    }
    result = run(tmp_path, {"adapter": "sillytavern"}, {k: v for k, v in files.items() if k != "c.jsonl"})
    chats = {r["system"].split()[0]: said(r) for r in result.rows if "role-play" not in r["system"]}
    assert chats == {"Mira": [("model", "Hi Ann!"), ("user", "Hello."), ("model", "Tea?")]}
    others = sorted(said(r) for r in result.rows if "role-play" in r["system"])
    assert others == [[("user", "Hey Tom"), ("model", "Hey.")], [("user", "Who?"), ("model", "Ava.")]]
    assert "its chat ends before this line" in result.rejected[0]["detail"] and result.rejected[0]["line"] == 3
    with pytest.raises(StageError):
        run(tmp_path / "c", {"adapter": "sillytavern"}, {"c.jsonl": jsonl(header)})


def test_sillytavern_broken_first_line(tmp_path: Path) -> None:
    body = "{broken\n" + jsonl(tavern("You", "Hey"), tavern("Tom", "Hey."))
    result = run(tmp_path, {"adapter": "sillytavern"}, {"a.jsonl": body})
    assert len(result.rows) == 1 and result.reasons == ["malformed"]


def test_sillytavern_swipes(tmp_path: Path) -> None:
    header = {"user_name": "Ann", "character_name": "Mira"}
    chat = [
        header,
        tavern("Mira", "Second.", is_user=False, swipes=["First.", "Second.", "Third."], swipe_id=1),
        tavern("Ann", "Why?", is_user=True),
        tavern("Mira", " ", is_user=False, swipes=["No.", "Yes."], swipe_id=0),
        tavern("Ann", "So?", is_user=True),
        tavern("Mira", "", is_user=False, swipes=["One", "Two"], swipe_id=99),
    ]
    result = run(tmp_path / "a", {"adapter": "sillytavern"}, {"a.jsonl": jsonl(*chat)})
    assert [text for _, text in said(result.rows[0])] == ["Second.", "Why?", "No.", "So?", "Two"]
    for index, bad in enumerate(("x", [1], {"a": 1})):
        broken = [header, tavern("Mira", "Hi", is_user=False), tavern("Mira", "Ho", is_user=False, swipes=bad)]
        found = run(tmp_path / str(index), {"adapter": "sillytavern"}, {"a.jsonl": jsonl(*broken)})
        assert "swipes: needs a list of texts" in found.rejected[0]["detail"]
    gated = [header, tavern("Mira", "zorble", is_user=False, swipes=["zorble", "quimple"])]
    body = jsonl(*gated, header, tavern("Mira", "Hi", is_user=False))
    assert run(tmp_path / "g", {"adapter": "sillytavern"}, {"a.jsonl": body}, NEUTRAL).reasons == ["minors_gate"]


# --- who wrote it --------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "openai"),
    [
        *((n, True) for n in ("gpt-4", "GPT-3.5-turbo", "openai/gpt-4o-mini", "chatgpt", "text-davinci-003", "gpt4")),
        *((n, True) for n in ("OpenAI", "azure_openai", "gpt-4-0613", "o1-preview", "gpt-4o", "code-davinci-002")),
        *((n, False) for n in ("claude-2", "gpt4all-13b", "gpt-j-6b", "gpt-neo", "pygmalion", "people", "")),
        *((n, False) for n in ("gpt4-x-alpaca", "gpt-4-x-vicuna", "gpt2", "kobold", "olmo1")),
    ],
)
def test_names_of_openai_models(name: str, openai: bool) -> None:
    assert by_openai(name) is openai


def test_generator_policy(tmp_path: Path) -> None:
    def row(number: int, **more: Any) -> dict[str, Any]:
        return {"instruction": f"Say {number}.", "output": f"{number}.", **more}

    rows = jsonl(row(1), row(2, model="gpt-4"), row(3, generator="claude-2"), row(4, model=7))
    read, files = {"adapter": "generic"}, {"a.jsonl": rows}
    play = {"purpose": "roleplay", "generator": "openai"}

    def lines(folder: str, made: dict[str, str], **filters: Any) -> list[int]:
        result = run(tmp_path / folder, read, dict(files), made=made, **filters)
        assert set(result.reasons) <= {"generator"}
        return [refused["line"] for refused in result.rejected]

    assert lines("a", play) == [1, 2, 4]  # the row's own word goes before the source's
    assert lines("b", {"purpose": "roleplay", "generator": "people"}) == [2]
    assert lines("c", {"purpose": "instruction", "generator": "openai"}) == []
    assert lines("d", play, openai_roleplay="keep") == []


def test_generator_of_a_sillytavern_chat(tmp_path: Path) -> None:
    def chat(name: str, **extra: str) -> list[dict[str, Any]]:
        header = {"user_name": "Ann", "character_name": name}
        return [header, tavern("Ann", "Hi", is_user=True), tavern(name, "Ho", is_user=False, extra=extra)]

    rows = [*chat("A", api="openai", model="gpt-4"), *chat("B", api="openai", model="claude-2")]
    rows += chat("C", api="openai")
    made = {"purpose": "roleplay", "generator": "anthropic"}
    result = run(tmp_path, {"adapter": "sillytavern"}, {"a.jsonl": jsonl(*rows)}, made=made)
    assert [(r["line"], r["detail"]) for r in result.rejected] == [
        (1, "role-play written by gpt-4"),
        (7, "role-play written by openai"),
    ]
