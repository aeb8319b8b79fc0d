"""Questions of ARC, HellaSwag, MMLU, BoolQ, OpenBookQA and PIQA: from published rows to text, choices and answer.

Sources of the wording: EleutherAI/lm-evaluation-harness b281b09 (lm_eval/tasks/arc.py, hellaswag.py,
hendrycks_test.py) and, for the zero-shot GPT4All table, its branch big-refactor; lm-eval 0.4.13 has the same.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.artifact.stage import StageError
from scripts.benchmark.formats.reading import text_of, texts_of
from scripts.benchmark.formats.tables import Row, read_rows
from scripts.benchmark.items import Item, make_item

_LETTERS = "ABCDE"
_MMLU = ("question", "choice0", "choice1", "choice2", "choice3", "answer")


@dataclass(frozen=True)
class Question:
    """One row as text: after `text` and one space comes a choice."""

    where: str
    text: str
    choices: tuple[str, ...]
    gold: int
    subject: str = ""
    """MMLU's subject, for its description."""

    def solved(self) -> str:
        """Return the question with its answer, as a shot."""
        return f"{self.text} {self.choices[self.gold]}"

    def item(self, context: str) -> Item:
        """Return the item of this question after `context` (which ends with its text)."""
        labels = [float(i == self.gold) for i in range(len(self.choices))]
        return make_item(self.where, context, self.choices, labels, distinct=False)


Reader = Callable[[Path], list[Question]]


def _question(where: str, text: str, choices: list[str], gold: object, subject: str = "") -> Question:
    if type(gold) is not int or not 0 <= gold < len(choices):
        raise StageError(f"{where}: answer: found {gold!r:.80} with {len(choices)} choices; must be one of them")
    return Question(where, text, tuple(choices), gold, subject)


def _labelled(where: str, row: dict[str, Any], key: str) -> tuple[list[str], int | None]:
    """Return texts and the answer's index of `{"text": [...], "label": [...]}` or `[{"text", "label"}, ...]`."""
    choices = row.get("choices", row.get(key))
    if isinstance(choices, list):
        choices = {"text": [c.get("text") for c in choices], "label": [c.get("label") for c in choices]}
    if not isinstance(choices, dict):
        raise StageError(f"{where}: choices: found {choices!r:.80}; must be a table of text and label")
    labels, answer = texts_of(where, choices, "label"), text_of(where, row, "answerKey").strip()
    texts = texts_of(where, choices, "text")
    if len(labels) != len(texts):
        raise StageError(f"{where}: choices: found {len(texts)} texts and {len(labels)} labels; must be as many")
    return texts, labels.index(answer) if answer in labels else None


def read_arc(path: Path) -> list[Question]:
    """ARC as on the hub, as AI2 published it (`question.stem`), or with the prompt ready (`query`, `gold`)."""
    questions = []
    for where, row in read_rows(path):
        if "query" in row:
            text = text_of(where, row, "query").removeprefix("Question: ")
            choices, gold = texts_of(where, row, "choices"), row.get("gold")
        else:
            stem = row.get("question")
            inner = stem if isinstance(stem, dict) else {}
            text = text_of(where, inner, "stem") if inner else text_of(where, row, "question")
            choices, gold = _labelled(where, {**inner, **row} if "choices" in row else {**row, **inner}, "choices")
        questions.append(_question(where, f"Question: {text}\nAnswer:", choices, gold))
    return questions


def clean_hellaswag(text: str) -> str:
    """Return WikiHow's text without its marks: ` [title]` becomes a stop, other brackets go, double spaces once."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def read_hellaswag(path: Path) -> list[Question]:
    """HellaSwag as published; `label` is a number or its digits."""
    questions = []
    for where, row in read_rows(path):
        context = f"{text_of(where, row, 'ctx_a')} {text_of(where, row, 'ctx_b').capitalize()}"
        text = clean_hellaswag(f"{text_of(where, row, 'activity_label')}: {context}")
        endings = [clean_hellaswag(ending) for ending in texts_of(where, row, "endings")]
        questions.append(_question(where, text, endings, _digits(row.get("label"))))
    return questions


_PART = re.compile(r"-\d{5}-of-\d{5}$")


def read_mmlu(path: Path) -> list[Question]:
    """MMLU as on the hub, or a subject's CSV with or without header; choices are the letters."""
    return [_mmlu(row, path) for row in read_rows(path, _MMLU)]


def _mmlu(row: Row, path: Path) -> Question:
    where, content = row
    if "choices" in content:
        options, answer = texts_of(where, content, "choices"), content.get("answer")
    else:
        options, answer = [text_of(where, content, key) for key in _MMLU[1:5]], content.get("answer")
    gold = _LETTERS.index(answer) if isinstance(answer, str) and answer in _LETTERS and answer else _digits(answer)
    lines = "".join(f"{letter}. {option}\n" for letter, option in zip(_LETTERS, options, strict=False))
    text = f"{text_of(where, content, 'question').strip()}\n{lines}Answer:"
    # The hub's files are called test-00000-of-00001.parquet; then the folder is the subject's.
    stem = path.parent.name if _PART.search(path.stem) else re.sub(r"_(test|dev|val)$", "", path.stem)
    subject = content.get("subject") or stem
    return _question(where, text, list(_LETTERS[: len(options)]), gold, str(subject))


def mmlu_description(subject: str) -> str:
    """Return the line above MMLU's shots."""
    return f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}."


def read_boolq(path: Path) -> list[Question]:
    """BoolQ as in SuperGLUE: passage, question, label 0 or 1; `answer` true or false as its authors published it."""
    questions = []
    for where, row in read_rows(path):
        answer = row.get("label", row.get("answer"))
        text = f"{text_of(where, row, 'passage')}\nQuestion: {text_of(where, row, 'question')}?\nAnswer:"
        questions.append(_question(where, text, ["no", "yes"], int(answer) if isinstance(answer, bool) else answer))
    return questions


def read_openbookqa(path: Path) -> list[Question]:
    """OpenBookQA as on the hub, or as AI2 published it (`question.stem`, `question.choices`)."""
    questions = []
    for where, row in read_rows(path):
        stem = row.get("question")
        flat = {**stem, **row, "question_stem": stem.get("stem")} if isinstance(stem, dict) else row
        choices, gold = _labelled(where, flat, "choices")
        questions.append(_question(where, text_of(where, flat, "question_stem"), choices, gold))
    return questions


def read_piqa(path: Path) -> list[Question]:
    """PIQA as on the hub: goal, two solutions, label 0 or 1."""
    questions = []
    for where, row in read_rows(path):
        choices = [text_of(where, row, "sol1"), text_of(where, row, "sol2")]
        text = f"Question: {text_of(where, row, 'goal')}\nAnswer:"
        questions.append(_question(where, text, choices, _digits(row.get("label"))))
    return questions


def render_winogrande(path: Path) -> list[Item]:
    """WinoGrande as on the hub: the context ends with an option, scored is the sentence's rest, the same for both."""
    items = []
    for where, row in read_rows(path):
        sentence, answer = text_of(where, row, "sentence"), _digits(row.get("answer"))
        if sentence.count("_") != 1 or answer not in (1, 2):
            raise StageError(
                f"{where}: needs one `_` in the sentence and answer 1 or 2; found {sentence!r:.80}, {answer}"
            )
        before, after = sentence.split("_")
        options = [text_of(where, row, "option1"), text_of(where, row, "option2")]
        labels = [float(answer == 1), float(answer == 2)]
        contexts = [before + option for option in options]
        items.append(make_item(where, "", options, labels, contexts=contexts, continuation=after.strip()))
    return items


def _digits(value: object) -> object:
    """Return the number of a label that may be written as its digits."""
    return int(value) if isinstance(value, str) and value.isdigit() else value
