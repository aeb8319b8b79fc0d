"""A conversation with a finished model: history, commands, and answers that appear as they are made."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from scripts.recipe.base import keyed_hash

HELP = "/reset forget all, /regenerate answer again, /system TEXT set the system prompt, /quit end"


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen."""

    temperature: float
    """0: always the likeliest."""
    top_p: float
    max_new_tokens: int
    seed: int


@dataclass
class Session:
    """One conversation. `say` prints a piece of text at once."""

    model: Any
    tokenizer: Any
    sampling: Sampling
    say: Callable[[str], None]
    system: str = ""
    turns: list[dict[str, str]] = field(default_factory=list)
    answered: int = 0
    """Answers so far: each one draws from its own seed."""

    def run(self, lines: Iterable[str]) -> None:
        """Answer line by line until they end or say /quit."""
        for line in lines:
            text = line.rstrip("\n")
            if text == "/quit":
                return
            self.take(text)

    def take(self, text: str) -> None:
        """Obey a command or answer a message."""
        command, _, rest = text.partition(" ")
        if command == "/reset":
            self.turns = []
            self.say("(forgotten)\n")
        elif command == "/system":
            self.system, self.turns = rest.strip(), []
            self.say("(new system prompt, conversation forgotten)\n")
        elif command == "/regenerate":
            if not self.turns:
                self.say("(nothing to answer again)\n")
                return
            self.turns.pop()
            self.answer()
        elif command.startswith("/"):
            self.say(f"(unknown command {command}; {HELP})\n")
        elif text.strip():
            self.turns.append({"role": "user", "content": text})
            self.answer()

    def answer(self) -> None:
        """Print the model's next turn while it is made, and keep it."""
        import torch
        from transformers import TextStreamer

        say, printed = self.say, []

        class Streamer(TextStreamer):
            def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
                printed.append(text)
                say(text)

        ids = self.prompt()
        streamer = Streamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
        warm = self.sampling.temperature > 0
        choice = {"temperature": self.sampling.temperature, "top_p": self.sampling.top_p} if warm else {}
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.no_grad():  # generate() takes no generator of its own
            torch.manual_seed(keyed_hash(self.sampling.seed, "chat", self.answered))
            self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=self.sampling.max_new_tokens,
                do_sample=warm,
                pad_token_id=self.tokenizer.eos_token_id,
                streamer=streamer,
                **choice,
            )
        self.answered += 1
        say("\n")
        self.turns.append({"role": "assistant", "content": "".join(printed)})

    def prompt(self) -> Any:
        """Return the ids `[1, tokens]` of the conversation by the chat template; the oldest turns go if it's too long.

        Raises:
            ValueError: the last message alone doesn't fit.
        """
        room = self.model.config.max_position_embeddings - self.sampling.max_new_tokens
        head = [{"role": "system", "content": self.system}] if self.system else []
        while True:
            made = self._templated(head + self.turns)
            if made.shape[1] <= room:
                return made.to(self.model.device)
            if len(self.turns) < 3:
                raise ValueError(f"{made.shape[1]} tokens, at most {room} fit beside an answer; say it shorter")
            self.turns = self.turns[2:]
            self.say("(the oldest exchange no longer fits and is forgotten)\n")

    def _templated(self, turns: list[dict[str, str]]) -> Any:
        """Return the ids `[1, tokens]` of turns. The template is foreign: transformers renders it in jinja's sandbox.

        Raises:
            ValueError: the template is none, reaches for what the sandbox forbids, or fails in any other way.
        """
        try:
            made = self.tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
        except (TemplateError, ArithmeticError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise ValueError(f"chat_template: cannot be used ({error}); take a model with another one") from None
        return made["input_ids"]


def load(folder: Path, device: str) -> tuple[Any, Any]:
    """Return (model, tokenizer) of a verified folder; no code of the folder runs.

    Raises:
        ValueError: the tokenizer has no chat template.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if not tokenizer.chat_template:
        raise ValueError(f"{folder}: has no chat_template.jinja: it is not known how this model is spoken to")
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    # A CPU computes fp16 slowly or not at all; a GPU takes the type of the file.
    dtype = torch.float32 if where == "cpu" else "auto"
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=dtype
    )
    return model.to(where).eval(), tokenizer
