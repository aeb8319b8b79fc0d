"""AI Dungeon's `text_adventures.txt`: stories between marks; a line that starts with `> ` is the player's action."""

from collections.abc import Iterator
from pathlib import Path

from scripts.artifact.stage import StageError
from scripts.clean.episode import (
    ENCODING,
    MALFORMED,
    ORIGINAL_DEFECT,
    Outcome,
    Outcomes,
    RawEpisode,
    Refused,
    Role,
    Turn,
)
from scripts.clean.rows import source_files
from scripts.clean.text import repair_text, undecoded
from scripts.clean.wording import Wording
from scripts.recipe.clean import AiDungeon

START, END = "<|startoftext|>", "<|endoftext|>"
_BUFFER_WORDS = 300
SYSTEMS = (
    "This is a text adventure. Tell the story, and answer each action of the player with what happens next.",
    "You are the narrator of an interactive story. The user plays the hero; describe what follows from each action.",
    "Text game: the user types actions, you describe the world and its reactions.",
)


def read(spec: AiDungeon, folder: Path, wording: Wording) -> Outcomes:
    """Yield the stories of all `.txt` files.

    Raises:
        StageError: a file without a single start mark.
    """
    for path in source_files(folder, ".txt"):
        stories = _stories(path, wording)
        yield from _without_last(stories) if wording.compat.aidungeon_flush else stories


def _stories(path: Path, wording: Wording) -> Outcomes:
    """Cut the file at its marks; text outside of a story, or a story without its end, is refused."""
    inside, found, begin, parts = False, False, 1, list[str]()
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as lines:
        for number, line in enumerate(lines, start=1):
            rest = line
            while rest:
                mark = END if inside else START
                # A second start mark ends the unfinished story too, or two stories would melt into one.
                at, again = rest.find(mark), rest.find(START) if inside else -1
                if again >= 0 and not 0 <= at < again:
                    at, mark = again, START
                parts.append(rest if at < 0 else rest[:at])
                if at < 0:
                    break
                yield from _cut(path, begin, parts, wording, whole=mark == END)
                inside, found, begin, parts = mark == START, True, number, []
                rest = rest[at + len(mark) :]
    yield from _cut(path, begin, parts, wording, whole=False)
    if not found:
        raise StageError(f"{path}: no {START} in it; is it AI Dungeon's text_adventures.txt?")


def _cut(path: Path, line: int, parts: list[str], wording: Wording, whole: bool) -> Iterator[Outcome]:
    """Yield what lies between two marks; white space outside of stories is nothing."""
    raw = "".join(parts)
    story = repair_text(raw)
    if not whole:
        if story.strip():
            yield Refused(line, path.name, MALFORMED, f"text that is not between {START} and {END}", story)
    elif undecoded(raw) or "\0" in raw:
        fault = "not valid UTF-8" if undecoded(raw) else "holds a NUL character"
        yield Refused(line, path.name, ENCODING, fault, story)
    else:
        # Branches of one story share its opening, and must share the prompt too: else none is a prefix of another.
        opening = story.partition("\n>")[0]
        system = wording.choose(SYSTEMS, "aidungeon_system", opening)
        if wording.compat.aidungeon_flush:
            yield RawEpisode(line, path.name, story, system, tuple(delayed_turns(story)), context=story)
        else:
            yield RawEpisode(line, path.name, story, system, tuple(story_turns(story)))


def _without_last(outcomes: Outcomes) -> Outcomes:
    """Refuse the last story: the original gave a story out at the next one's start mark (`aidungeon_flush`)."""
    waiting: RawEpisode | None = None
    for outcome in outcomes:
        if isinstance(outcome, RawEpisode):
            if waiting is not None:
                yield waiting
            waiting = outcome
        else:
            yield outcome
    if waiting is not None:
        why = "aidungeon_flush: the last story of a file is lost"
        yield Refused(waiting.line, waiting.file, ORIGINAL_DEFECT, why, waiting.context, waiting.key)


def delayed_turns(story: str) -> list[Turn]:
    """Return the turns as the original builder cut them (`aidungeon_flush`).

    Narrative waits until there are 300 words of it, actions don't: most of them come out before the narrative that
    they follow, and what waits at the end is lost.
    """
    turns: list[Turn] = []
    narrative: list[str] = []
    words = 0
    for line in story.split("\n"):
        if line.startswith(">"):
            turns.append(Turn("user", line[1:].strip()))
            continue
        narrative.append(line)
        words += len(line.split())
        if words >= _BUFFER_WORDS:
            turns.append(Turn("model", "\n".join(narrative).strip()))
            narrative, words = [], 0
    return turns


def story_turns(story: str) -> list[Turn]:
    """Return narrative as model turns and actions as user turns, in the order of the text.

    The narrative so far leaves before each action and at the end; the original builder did neither
    (data reference, section 1.3, `aidungeon_flush`).
    """
    turns: list[Turn] = []
    narrative: list[str] = []

    def flush() -> None:
        told = "\n".join(narrative).strip()
        narrative.clear()
        if told:
            turns.append(Turn("model", told))

    for line in story.split("\n"):
        if line.startswith(">"):
            flush()
            role: Role = "user"
            turns.append(Turn(role, line[1:].strip()))
        else:
            narrative.append(line)
    flush()
    return turns
