"""Detector of refusals and moralising: first person, anchored to the first two sentences of a model turn.

Substring lists drop fiction (21 of 2,321 chunks, none a refusal: data reference, section 1.3, `refusal_list`);
a character who says "I can't help you" inside quotes must pass.
"""

import re


def _any(*choices: str) -> str:
    return f"(?:{'|'.join(choices)})"


# What an assistant refuses to do; what a character can't do (go, believe, see) is not in it.
_TASK = _any(
    r"assist|comply|provide|generate|produce|participate|support|encourage|promote|condone|discuss|access|browse",
    r"help (?:you )?(?:with|to)|fulfil?l|creat(?:e|ing)|writ(?:e|ing)|engage in|role-?play|recommend|pretend|act as",
    r"continu(?:e|ing) (?:with |this|the (?:story|role|conversation|scene))|answer (?:that|this|your)|respond to",
    r"complete (?:that|this|your)|give (?:advice|instructions)|offer (?:advice|help|instructions)",
)
_NOT_ABLE = r"not (?:able|going|comfortable|willing|allowed|permitted|programmed|designed)"
_CANNOT = _any(
    r"can(?:no|')?t|can not|could not|won't|will not|should not|shouldn't|(?:do not|don't) feel comfortable",
    rf"(?:am|'m) (?:unable|{_NOT_ABLE})(?: to| with)?",
    r"(?:must|have to) (?:respectfully |politely )?(?:decline|refuse)(?: to)?",
)
_ADVERBS = r"(?:\s(?:simply|really|just|also|ethically|in good conscience|therefore|personally))*"
_AI = (
    r"an? (?:(?:ethical|responsible|helpful|harmless|large) )*(?:ai|a\.i\.|artificial intelligence|language model)"
    r"(?: (?:language )?(?:model|assistant|system|chat ?bot|program))?(?: (?:created|developed|trained|made) by \w+)?"
)
_SORRY = r"(?:i'm|i am|i apologi[sz]e|my apologies|apologies|sorry|unfortunately|regrettably)\b[^.!?\"]{0,60}?"
_OBJECT = _any(
    r"request|prompt|content|material|any|such|instructions|topics?|role-?play|conversation|illegal|harmful",
    r"(?:that|this|it)(?! one)",
)
_RULES = r"(?:guidelines|programming|polic(?:y|ies)|content policy|principles|terms|training)"
_PATTERNS = {
    "apology": rf"{_SORRY}\bi{_ADVERBS}(?:\s|(?='m)){_CANNOT}{_ADVERBS}[^.!?\"]{{0,30}}?\b{_TASK}\b",
    "cannot": rf"(?:no, |well, |but )?i{_ADVERBS}(?:\s|(?='m)){_CANNOT}{_ADVERBS} (?:be able to )?{_TASK}\b"
    rf"[^.!?\"]{{0,80}}?\b{_OBJECT}\b",
    "decline": r"i(?:'m afraid i)? (?:must|have to|will have to|need to) (?:respectfully |politely )?(?:decline|refuse)"
    r"[^.!?\"]{0,60}\b(?:request|to (?:assist|help|write|provide|generate|create|continue|answer|participate))",
    "as_ai": rf"(?:[^.!?\"]{{0,60}}\b)?as {_AI},? i\b"
    r"(?:'m|\s(?:am|can|do|don't|won't|will|must|have|cannot|strive|lack))",
    "i_am_ai": rf"(?:i'm|i am) (?:sorry, but i am )?(?:just |only )?{_AI}[^.!?\"]{{0,40}}?"
    rf"\b(?:and|so|which means|therefore)\b[^.!?\"]{{0,30}}?\b{_CANNOT}",
    "policy": r"[^.!?\"]{0,80}\b(?:goes|go|is|are|be) (?:against|in violation of|prohibited by|outside) "
    rf"(?:my|our|openai's|anthropic's|the) (?:\w+ )?{_RULES}\b",
    "programming": rf"my (?:\w+ )?{_RULES} (?:\w+ )?"
    r"(?:prevents?|prohibits?|forbids?|(?:do|does) not (?:allow|permit)|(?:don't|doesn't) (?:allow|permit))",
    "moral": r"(?:i'm sorry, but |i apologi[sz]e, but )?(?:it is|it's|it would be|that is|that's|this is) "
    r"(?:not |in|un)(?:appropriate|ethical|acceptable)\b[^.!?\"]{0,40}"
    r"\b(?:to (?:request|ask|write|generate|create|make|engage|role-?play|use)|for me to|request|content)\b",
    "promise": r"i (?:strive|aim|am designed|was designed|am programmed|was created) to (?:be|provide|promote|remain)"
    r"[^.!?\"]{0,40}\b(?:respectful|harmless|inclusive|ethical|appropriate|safe|helpful and)\b",
}
_STARTS = re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in _PATTERNS.items()))
# Cheap test first: a turn without one of these can't match, which spares the regex on nearly all fiction.
_HINTS = ("guidelines", "programming", "polic", "principles", "appropriate", "ethical", "acceptable", "as a")
_I = re.compile(r"i(?<!\wi)\b")  # begins with a letter, which is searched for 5 times as fast as a border
_ACTION = re.compile(r"\*[^*\n]{1,80}\*\s*")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\s*_]+|\n+")
_HEAD_CHARS = 500
_QUOTES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u02bc": "'", "\u201c": '"', "\u201d": '"'})


def refusal_in(turn: str) -> str | None:
    """Return the name of the pattern by which a model turn refuses or moralises, or None.

    Only the first two sentences count, each from its first word on (an action between stars may come before it);
    a sentence that begins inside quotes is someone's speech.
    """
    head = turn[:_HEAD_CHARS].translate(_QUOTES).lower()
    if not _I.search(head) and not any(hint in head for hint in _HINTS):
        return None
    spoken = _ACTION.sub("", head.lstrip(), count=1) if head.lstrip().startswith("*") else head
    for sentence in _SENTENCE_END.split(spoken.lstrip(" \n*_([-"), maxsplit=2)[:2]:
        match = _STARTS.match(sentence.lstrip(" *_([-"))
        if match is not None:
            return match.lastgroup
    return None
