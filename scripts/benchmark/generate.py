"""Greedy replies in held-out conversations, and 50-token extraction; one conversation at a time, so nothing mixes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from transformers import DynamicCache

from scripts.artifact.stage import StageError
from scripts.benchmark.dialogue import Conversation
from scripts.benchmark.replies import Dialogue, Reply
from scripts.benchmark.rows import END
from scripts.recipe.prompt_format import PromptFormat

if TYPE_CHECKING:
    from scripts.benchmark.model import Model

EXTRACT_TOKENS = 50
"""Given and expected: Carlini et al., arXiv 2202.07646."""


def converse(model: "Model", conversation: Conversation, turns: int, max_new_tokens: int) -> Dialogue:
    """Return greedy replies at the first `turns` model turns.

    The model's own earlier replies stand in place of the true ones, so that loops and drift can build up; a context
    too long for the model loses what follows its first token.

    Raises:
        StageError: the model's context has no room for a reply.
    """
    model.use_bos(True)
    room = model.max_length - max_new_tokens
    if room < 2:
        raise StageError(
            f"max_new_tokens {max_new_tokens} leaves no room for a context in max_length {model.max_length}; lower "
            "max_new_tokens in the suite or raise benchmark.max_length"
        )
    history, given, replies, begin = "", [], [], 0
    for turn in conversation.turns[:turns]:
        asked = "".join(conversation.texts[begin:turn])
        history, begin = history + asked, turn + 1
        given.append(asked.replace(END, ""))
        tokens = model.tok_encode(history)
        if len(tokens) > room:
            tokens = [tokens[0], *tokens[len(tokens) - room + 1 :]]
        replies.append(_reply(model, tokens, max_new_tokens, conversation.format))
        history += replies[-1].text + conversation.format.model[1] + END
    return Dialogue("".join(given), tuple(replies))


@torch.no_grad()
def _reply(model: "Model", tokens: list[int], max_new_tokens: int, form: PromptFormat) -> Reply:
    network, cache = model.model, DynamicCache()
    marker = form.user[0].strip()
    new: list[int] = []

    def said(tokens: Sequence[int]) -> str:
        return str(model.tok_decode(list(tokens), skip_special_tokens=False))

    def reply(text: str, end: str) -> Reply:
        return Reply(text.rstrip("\n").removesuffix(form.model[1]) if form.model[1] else text, end)

    fed = torch.tensor([tokens], device=model.device)
    for _ in range(max_new_tokens):
        hidden = network.base_model(input_ids=fed, past_key_values=cache, use_cache=True).last_hidden_state
        token = int(network.get_output_embeddings()(hidden[:, -1]).argmax(-1))
        if token == model.eot_token_id:
            return reply(said(new), "eos")
        new.append(token)
        # The marker is plain text: its last token may hold more, so the text is looked at, near its end.
        if marker in said(new[-2 * len(marker) :]):
            return reply(said(new).split(marker)[0], "user")
        fed = torch.tensor([[token]], device=model.device)
    return reply(said(new), "length")


def extract(model: "Model", conversations: Sequence[Conversation]) -> list[tuple[float, float]]:
    """Return for each conversation (log-likelihood of tokens 50 to 99, 1 if greedy decoding gives them all).

    Greedy decoding after the first 50 tokens gives the next 50 exactly if each is the most likely one after the true
    tokens before it: one forward pass tells. Shorter conversations are left out before (`work.EXTRACT_CHARS`).
    """
    model.use_bos(True)
    found = []
    for conversation in conversations:
        tokens = model.tok_encode("".join(conversation.texts))[: 2 * EXTRACT_TOKENS]
        if len(tokens) <= EXTRACT_TOKENS:
            raise StageError(
                f"conversation {conversation.source}/{conversation.id}: {len(tokens)} tokens; extraction needs more "
                f"than {EXTRACT_TOKENS}; look into the row, or remove the task"
            )
        texts = (conversation.id, "")
        request = (texts, tokens[:EXTRACT_TOKENS], tokens[EXTRACT_TOKENS:])
        score, greedy = model._loglikelihood_tokens([request])[0]
        found.append((score, float(greedy)))
    return found
