"""The demo source of adventures: AI Dungeon."""

from collections import Counter
from pathlib import Path

from tests.demo_texts.voice import LITERALS, Planted, Voice, spread

ROWS = 300


def dungeon_story(row: int) -> list[str]:
    """Return one adventure as parts: narrative, action, narrative, action, ..., narrative."""
    voice = Voice("aidungeon", row)
    voice.bind("hero", "goal", "start_place", "year")
    parts = [voice.say("$intro") + voice.say("$intro_more")]
    for act in voice.pick_all(["go", "take", "talk", "use", "fight", "look"], voice.number(3, 5)):
        voice.bind("direction", "item", "creature", "place")
        parts += [f"> {voice.say(f'$act_{act}')}", voice.say(f"$res_{act}")]
    parts[-1] += "\n\n" + voice.say("$ending")
    return parts


def write_aidungeon(path: Path) -> Planted:
    """Write the AI Dungeon look-alike: `<|startoftext|>` stories with `> ` lines, `<|endoftext|>`."""
    stories = [dungeon_story(row) for row in range(ROWS)]
    voice = Voice("aidungeon", "planted")
    for row, literal in zip(range(6), LITERALS, strict=True):
        stories[row][2] += f" On the wall somebody has written {literal} in chalk."
    for row in range(6, 9):
        stories[row][2] = voice.say("$refusal")
    stories[9][2] = voice.grammar["near_miss"][0]
    for row in (10, 11):
        stories[row] = [part for part in stories[row] if not part.startswith("> ")]
    stories[12][2] = " "
    stories[13] = [""]
    for row in (14, 15):
        stories[row] = stories[row][:-1]
    branches = [story[:-2] for story in stories[16:22]]
    copies = [list(story) for story in stories[22:28]]
    texts = ["\n".join(story) for story in spread("aidungeon", stories + branches + copies)]
    path.write_bytes("".join(f"<|startoftext|>{text}<|endoftext|>\n" for text in texts).encode())
    return Counter(
        literal=6,
        refusal=3,
        near_refusal=1,
        no_action=2,
        blank_turn=1,
        empty=1,
        ends_with_user=2,
        prefix=6,
        exact_duplicate=6,
    )
