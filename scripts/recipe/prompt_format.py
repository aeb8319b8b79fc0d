"""Prompt formats: how roles become text, and the chat template by which inference sees the same text.

In all of them markers are plain text (the vocabulary stays as it is) and a model turn ends in the end token, which
packing puts behind it. The reference strings are unit tests.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FormatName = Literal["metharme", "chatml", "alpaca"]


@dataclass(frozen=True)
class PromptFormat:
    """What stands before and after the text of each role."""

    title: str
    """Name for people."""
    system: tuple[str, str]
    user: tuple[str, str]
    model: tuple[str, str]
    """What follows the model's text is learned with it; the end token comes after that."""
    between: str
    """Between a model turn's end token and the next turn."""
    marker: re.Pattern[str]
    """What would begin or end a turn if somebody's text spelled it out."""

    def disarmed(self, text: str) -> tuple[str, int]:
        """Return the text with a space behind the first character of each literal marker, and how many there were.

        It stays readable, and for Metharme it is what the clean stage does already.
        """
        return self.marker.subn(lambda found: f"{found[0][0]} {found[0][1:]}", text)

    def chat_template(self) -> str:
        """Return the Jinja template that renders a conversation as its training text, control tokens included."""

        def said(role: str, around: tuple[str, str], end: str = "") -> str:
            after = f" + {_quoted(around[1])}" if around[1] else ""
            before = f"{_quoted(around[0])} + " if around[0] else ""
            return f"if message['role'] == '{role}' %}}{{{{ {before}message['content']{after}{end} }}}}"

        between = ""
        if self.between:
            follows = "not loop.first and messages[loop.index0 - 1]['role'] == 'assistant'"
            between = f"{{% if {follows} %}}{{{{ {_quoted(self.between)} }}}}{{% endif %}}"
        ask = _quoted(self.between + self.model[0])
        resumed = f"{{{{ {_quoted(self.model[0])} }}}}"
        if self.between:
            follows = "messages and messages[-1]['role'] == 'assistant'"
            resumed = f"{{% if {follows} %}}{{{{ {ask} }}}}{{% else %}}{resumed}{{% endif %}}"
        return (
            f"{{{{ bos_token }}}}{{% for message in messages %}}{between}"
            f"{{% {said('system', self.system)}"
            f"{{% el{said('user', self.user)}"
            f"{{% el{said('assistant', self.model, ' + eos_token')}"
            f"{{% else %}}{{{{ raise_exception('{self.title} knows the roles system, user and assistant, not ' "
            "+ message['role']) }}{% endif %}{% endfor %}"
            f"{{% if add_generation_prompt %}}{resumed}{{% endif %}}"
        )


def _quoted(text: str) -> str:
    """Return a Jinja string."""
    return "'" + text.replace("\n", "\\n") + "'"


FORMATS: dict[FormatName, PromptFormat] = {
    # The announcement's own: nothing stands between marker and text or between turns.
    "metharme": PromptFormat(
        "Metharme",
        ("<|system|>", ""),
        ("<|user|>", ""),
        ("<|model|>", ""),
        "",
        re.compile(r"<\|(?:system|user|model)\|>"),
    ),
    # OpenAI's layout, with the end token behind the last mark, since Llama's end token is not `<|im_end|>`.
    "chatml": PromptFormat(
        "ChatML",
        ("<|im_start|>system\n", "<|im_end|>\n"),
        ("<|im_start|>user\n", "<|im_end|>\n"),
        ("<|im_start|>assistant\n", "<|im_end|>"),
        "\n",
        re.compile(r"<\|im_(?:start|end)\|>"),
    ),
    # The headings of Stanford Alpaca. Its preamble is a system text like any other, not part of the layout.
    "alpaca": PromptFormat(
        "Alpaca",
        ("", "\n\n"),
        ("### Instruction:\n", "\n\n"),
        ("### Response:\n", ""),
        "\n\n",
        re.compile(r"^###(?= (?:Instruction|Input|Response):)", re.MULTILINE),
    ),
}


def write_chat_template(folder: Path, name: FormatName) -> None:
    """Write `chat_template.jinja` into a model folder, and the same into its `tokenizer_config.json`, if it has one.

    A base model knows no format, or another one: what was trained is what its users must be given.
    """
    template = FORMATS[name].chat_template()
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    config = folder / "tokenizer_config.json"
    if not config.is_file():
        return
    content = json.loads(config.read_text(encoding="utf-8"))
    if content.get("chat_template") != template:
        content["chat_template"] = template
        text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
        config.write_text(text + "\n", encoding="utf-8")
