"""The two demo sources that are chats: PIPPA and Claude multiround."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.recipe.base import keyed_hash
from tests.demo_texts.voice import LITERALS, Planted, Voice, dumps, spread, write_lines

PIPPA_ROWS = 300
CLAUDE_ROWS = 300
CUT_OFF_MS = 1673049600000
"""First millisecond after the PIPPA rows that the recipes take."""
REDACTIONS = ("[NAME_IN_MESSAGE_REDACTED]", "[REDACTED]", "[FIRST_NAME_REDACTED]", "[USERNAME_REDACTED]")


Chat = dict[str, Any]


def pippa_chat(row: int) -> Chat:
    """Return one role-play chat: greeting, then topics in random order."""
    voice = Voice("pippa", row)
    voice.bind("char", "role", "place", "thing", "trait", "habit", "wish", "creature")
    greeting = voice.say("$greeting")
    said = [{"message": greeting, "is_human": False}]
    for topic in [*voice.pick_all(["work", "thing", "place", "wish", "friend", "weather"], voice.number(1, 3)), "bye"]:
        said.append({"message": voice.say(f"$ask_{topic}"), "is_human": True})
        said.append({"message": voice.say(f"$tell_{topic}"), "is_human": False})
    categories = voice.pick_all(voice.grammar["category"], voice.number(0, 2))
    example = "\n".join([voice.say("$definition"), voice.say("$example") if voice.number(0, 1) else ""]).strip()
    return {
        "submission_timestamp": CUT_OFF_MS - 1 - voice.number(0, 30 * 86_400_000),
        "categories": categories or None,
        "bot_id": f"{keyed_hash('bot', row):016x}",
        "bot_name": voice.bound["char"],
        "bot_greeting": greeting,
        "bot_definitions": example,
        "bot_description": voice.say("$description"),
        "conversation": said,
    }


def write_pippa(path: Path) -> Planted:
    """Write the PIPPA look-alike: JSON lines."""
    chats = [pippa_chat(row) for row in range(PIPPA_ROWS)]
    planted: Planted = Counter()
    voice = Voice("pippa", "planted")

    def plant(case: str, chat: Chat) -> Chat:
        planted[case] += 1
        return chat

    def say(case: str, chat: Chat, turn: int, change: Callable[[str], str]) -> None:
        said = [dict(item) for item in chat["conversation"]]
        said[turn]["message"] = change(said[turn]["message"])
        chat["conversation"] = said
        planted[case] += 1

    extra = [plant("exact_duplicate", dict(chat)) for chat in chats[:6]]
    for chat in chats[6:12]:
        shorter = {**chat, "submission_timestamp": chat["submission_timestamp"] - 3_600_000}
        extra.append(plant("prefix", {**shorter, "conversation": chat["conversation"][:-2]}))
    for row in range(12, 36):
        token = REDACTIONS[row % len(REDACTIONS)]
        say("redaction", chats[row], 1, lambda text, token=token: f"I am {token}. {text}")  # type: ignore[misc]
    for row in range(36, 44):
        say("placeholder", chats[row], 2, lambda text: "{{char}} bows to {{user}}. " + text)
    for offset, chat in enumerate(chats[44:52]):
        chat["submission_timestamp"] = CUT_OFF_MS + offset * 3_600_000
        planted["after_cut_off"] += 1
    chats[52]["submission_timestamp"] = CUT_OFF_MS - 1
    planted["just_before_cut_off"] += 1
    for row in range(53, 58):
        say("refusal", chats[row], 2, lambda text: voice.say("$refusal") + " " + text)
    say("near_refusal", chats[58], 2, lambda text: voice.grammar["near_miss"][0].replace("$char $move", "smiles"))
    for row, turn in ((59, 1), (60, 2), (61, 3)):
        say("blank_turn", chats[row], turn, lambda text: "  \n")
    for row, literal in zip(range(62, 68), LITERALS, strict=True):
        say("literal", chats[row], 1 + row % 2, lambda text, literal=literal: f"{text} {literal} is what it says.")  # type: ignore[misc]
    say("byte_order_mark", chats[68], 0, lambda text: "\ufeff" + text)
    say("decomposed", chats[69], 2, lambda text: text + " We had cre\u0300me and cafe\u0301.")
    say("emoji", chats[70], 1, lambda text: text + " \U0001f60a")
    chats[71]["bot_definitions"] += "\nSTART:text_remaining"
    chats[72]["bot_definitions"] = chats[72]["bot_description"] = ""
    for chat, kept in ((chats[73], 1), (chats[74], 2)):
        chat["conversation"] = chat["conversation"][:kept]
        planted["too_short"] += 1
    lines = [dumps(chat) for chat in chats + extra]
    lines += [lines[75][: len(lines[75]) // 2], '["not", "a", "chat"]', '{"bot_name": "Nobody"}', ""]
    planted["malformed"] += 3
    write_lines(path, spread("pippa", lines))
    return planted


def claude_chat(row: int) -> list[tuple[str, str]]:
    """Return one conversation as (speaker, text): an opening, some follow-up questions, thanks."""
    voice = Voice("claude-multi", row)
    topic = voice.pick(voice.grammar["topics"])
    first = voice.number(0, len(topic["steps"]) - 2)
    m1, m2 = voice.pick_all(topic["mistakes"], 2)
    voice.bound.update(topic=topic["name"], m1=m1, m2=m2, tip=voice.pick(topic["tips"]))
    voice.bound.update(step=topic["steps"][first], next=topic["steps"][first + 1])
    plan = "\n".join(f"{n}. {step[0].upper()}{step[1:]}." for n, step in enumerate(topic["steps"], start=1))
    said = [("human", voice.say("$open")), ("gpt", voice.say("$intro") + f"\n\n{plan}\n\n" + voice.say("$outro"))]
    for part in voice.pick_all(["tools", "mistakes", "tip", "step", "time"], voice.number(1, 3)):
        answer = voice.say(f"$say_{part}")
        if part == "tools":
            answer += "\n" + "\n".join(f"- {tool}" for tool in voice.pick_all(topic["tools"], 3))
        said += [("human", voice.say(f"$ask_{part}")), ("gpt", answer)]
    if voice.number(0, 1):
        said += [("human", voice.say("$thanks")), ("gpt", voice.say("$welcome"))]
    return said


def write_claude(path: Path) -> Planted:
    """Write the Claude multiround look-alike: one JSON array of `{id, conversations: [{from, value}]}`."""
    chats = [claude_chat(row) for row in range(CLAUDE_ROWS)]
    voice = Voice("claude-multi", "planted")
    for row, turn in ((0, 2), (1, 3), (2, 5)):
        chats[row][turn] = (chats[row][turn][0], " ")
    for row in range(3, 9):
        chats[row][1] = ("gpt", voice.say("$refusal"))
    chats[9][3] = ("gpt", voice.grammar["near_miss"][0])
    for row, literal in zip(range(10, 16), LITERALS, strict=True):
        chats[row][0] = ("human", f"{chats[row][0][1]} My notes end with {literal} here.")
    for row in (16, 17):
        chats[row] = chats[row][:-1]
    chats[18] = chats[18][1:]
    chats += [list(chat) for chat in chats[19:25]] + [[], [("human", "Hello?")]]
    rows = [
        {"id": f"demo_{n:05d}", "conversations": [{"from": who, "value": text} for who, text in chat]}
        for n, chat in enumerate(spread("claude-multi", chats))
    ]
    path.write_bytes((json.dumps(rows, ensure_ascii=False, indent=1) + "\n").encode())
    return Counter(
        blank_turn=3,
        refusal=6,
        near_refusal=1,
        literal=6,
        ends_with_user=2,
        begins_with_model=1,
        exact_duplicate=6,
        empty=2,
    )
