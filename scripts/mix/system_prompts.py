"""System prompts in many wordings: templates with alternatives, filled from what the model wrote.

A template is plain text with three kinds of slots: `%{one|other|...}` takes one of the alternatives (a part may be
empty), `{{system}}` is the conversation's own system text, and `{{response_length_str}}` and `{{response_style_str}}`
say how long and in which style the model's turns are, so that at inference these can be asked for.
"""

import re
from collections.abc import Iterable, Sequence

from scripts.recipe.base import keyed_hash
from scripts.recipe.mix import ALTERNATIVES, alternatives

# Mean words of a model turn, and what to call it: own wording, in the steps in which people ask for length.
_LENGTHS = (
    (15, "Answer in one short sentence."),
    (40, "Keep each reply to a sentence or two."),
    (100, "Write a short paragraph at a time."),
    (220, "Write two or three paragraphs at a time."),
    (450, "Write long replies of several paragraphs."),
)
_LONGEST = "Write at great length, as one would in a chapter."
_ACTION = re.compile(r"\*[^*\n]+\*")
_SPEECH = re.compile(r"[\"\u201c][^\"\u201c\u201d\n]+[\"\u201d]")
_WORD = re.compile(r"\S+")
_STYLES = {
    (False, False): "Write plain prose.",
    (False, True): "Put speech in quotation marks.",
    (True, False): "Put actions between asterisks.",
    (True, True): "Put actions between asterisks and speech in quotation marks.",
}


def length_text(replies: Sequence[str]) -> str:
    """Return the sentence that asks for replies as long as these, by their mean number of words."""
    words = sum(len(_WORD.findall(reply)) for reply in replies) / max(1, len(replies))
    return next((text for limit, text in _LENGTHS if words <= limit), _LONGEST)


def style_text(replies: Sequence[str]) -> str:
    """Return the sentence that asks for the marks of these replies; a mark counts if half of them have it."""

    def usual(mark: re.Pattern[str]) -> bool:
        return 2 * sum(mark.search(reply) is not None for reply in replies) >= max(1, len(replies))

    return _STYLES[usual(_ACTION), usual(_SPEECH)]


def system_text(
    seed: int,
    source: str,
    episode: str,
    templates: Sequence[str],
    system: str | None,
    turns: Iterable[tuple[str, str | None]],
) -> str:
    """Return a conversation's system text: a template first, then its variant, both by keyed hash.

    The template first: else the one with the most alternatives would take most rows.
    """
    template = templates[keyed_hash(seed, "mix.system_template", source, episode) % len(templates)]
    number = keyed_hash(seed, "mix.system_variant", source, episode) % alternatives(template)
    text = expanded(template, number)
    replies = [text or "" for role, text in turns if role == "model"]
    slots = {"system": (system or "").strip()}
    if "response_length_str" in text:
        slots["response_length_str"] = length_text(replies)
    if "response_style_str" in text:
        slots["response_style_str"] = style_text(replies)
    # One pass: a slot that the conversation's own text spells out stays text.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: slots.get(found[1], found[0]), text).strip()


def expanded(template: str, number: int) -> str:
    """Return variant `number` of a template, 0 <= number < `alternatives(template)`; the last slot turns fastest."""
    parts = ALTERNATIVES.split(template)
    for index in range(len(parts) - 2, 0, -2):
        choices = parts[index].split("|")
        number, choice = divmod(number, len(choices))
        parts[index] = choices[choice]
    return "".join(parts)
