"""The language filter on sample texts of our own."""

from pathlib import Path

import pytest

from scripts.artifact.stage import StageError
from scripts.clean.episode import Turn
from scripts.clean.language import HEAD_CHARS, foreign, head_of, plainly_english
from tests.unit.clean_tools import jsonl, run

ENGLISH = """
The miller closes the door behind him and counts the sacks by the light of one small candle.
You follow the narrow path down to the harbour, where three boats are waiting for the tide.
*She laughs and sets the kettle on the stove.* "You must be cold. Come in, come in, before the soup does."
Write a short letter to a friend who has moved to another town, and tell her about the new bakery.
The capital of Kenya is Nairobi, and the longest river that flows through Egypt is the Nile, of course.
To sort the list, compare each pair of neighbours and swap them if they stand in the wrong order.
def add(a, b):\\n    return a + b\\n\\nprint(add(2, 3))  # the function returns five, as you can see
Ahoy there, matey! Ye be sailin' into the fog without a lantern, an' that be a mighty poor idea.
Thou hast come late, good knight, and the feast is done; yet bread and ale are left upon the board.
Ok so like, I was walking home yesterday and guess what, the cat from next door followed me all the way lol
""".strip().splitlines()
FOREIGN = {
    "de": "Der Müller schließt die Tür hinter sich und zählt die Säcke beim Licht einer einzigen kleinen Kerze.",
    "fr": "Le meunier ferme la porte derrière lui et compte les sacs à la lumière d'une seule petite bougie.",
    "es": "El molinero cierra la puerta y cuenta los sacos a la luz de una sola vela mientras afuera llueve.",
    "it": "Il mugnaio chiude la porta dietro di sé e conta i sacchi alla luce di una sola piccola candela.",
    "pt": "O moleiro fecha a porta atrás de si e conta os sacos à luz de uma única vela, enquanto chove lá fora.",
    "nl": "De molenaar sluit de deur achter zich en telt de zakken bij het licht van een enkele kleine kaars.",
    "pl": "Młynarz zamyka za sobą drzwi i liczy worki przy świetle jednej małej świecy, a na dworze pada deszcz.",
    "ru": "Мельник закрывает за собой дверь и считает мешки при свете одной маленькой свечи, а за окном дождь.",
    "ja": "粉屋は後ろ手に扉を閉め、小さな蝋燭の明かりで袋を数えている。外では静かに雨が降っていて、誰も起きていない。"
    "明日の朝は早い。パンを焼く前に、川の水を見に行かなければならない。",
}


def told(text: str) -> list[Turn]:
    return [Turn("user", text[:20]), Turn("model", text)]


def test_every_sample_is_judged_right() -> None:
    assert [text for text in ENGLISH if foreign(told(text), ["en"], 60)] == []
    assert {code: foreign(told(text), ["en"], 60) for code, text in FOREIGN.items()} == {c: c for c in FOREIGN}
    assert [code for code, text in FOREIGN.items() if foreign(told(text), [code, "en"], 60)] == []


def test_short_texts_and_tails_are_not_judged() -> None:
    german = FOREIGN["de"]
    assert foreign([Turn("model", german[:50])], ["en"], 60) == ""
    assert foreign([Turn("model", german[:50])], ["en"], 40) == "de"
    turns = [Turn("user", ENGLISH[0] * 10), Turn("model", german * 50)]
    assert len(head_of(turns)) == HEAD_CHARS and foreign(turns, ["en"], 60) == ""
    assert head_of([Turn("user", "ab"), Turn("model", "cd")]) == "ab\ncd"


def test_only_english_is_plainly_english() -> None:
    assert [plainly_english(text) for text in FOREIGN.values()] == [False] * len(FOREIGN)
    # Words that two languages share, however many, and English words in a foreign text don't make it English.
    dutch = "hij was in de tuin en had is of was in het huis en is in was had of is her"
    assert not plainly_english(dutch) and not plainly_english(FOREIGN["es"] * 3 + " and that is the this")
    assert sum(plainly_english(text) for text in ENGLISH) >= 5
    assert foreign(told(ENGLISH[0]), ["de"], 60) == "en", "where English isn't allowed, the identifier decides"


def chat(text: str) -> dict[str, object]:
    return {"conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": text}]}


def test_refused_with_its_language_and_by_settings(tmp_path: Path) -> None:
    rows = jsonl(chat(FOREIGN["de"]), chat(FOREIGN["fr"]), chat(ENGLISH[0]), chat("Ja, gut."))
    read = {"adapter": "sharegpt"}
    result = run(tmp_path / "a", read, {"a.jsonl": rows})
    assert [(r["line"], r["reason"], r["detail"]) for r in result.rejected] == [
        (1, "language", "de"),
        (2, "language", "fr"),
    ]
    assert len(run(tmp_path / "b", read, {"a.jsonl": rows}, languages=["en", "de"]).rows) == 3
    assert len(run(tmp_path / "c", read, {"a.jsonl": rows}, languages=None).rows) == 4
    assert len(run(tmp_path / "d", read, {"a.jsonl": rows}, language_min_chars=1000).rows) == 4
    with pytest.raises(StageError, match="found 'xx'; allowed: .*en"):
        run(tmp_path / "e", read, {"a.jsonl": rows}, languages=["en", "xx"])
