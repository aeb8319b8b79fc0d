"""Greedy replies in held-out conversations, and 50-token extraction; one conversation at a time, so nothing mixes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from transformers import DynamicCache

from scripts.benchmark.dialogue import Conversation
from scripts.benchmark.replies import USER_MARKER, Dialogue, Reply

if TYPE_CHECKING:
    from scripts.benchmark.model import Model

EXTRACT_TOKENS = 50
"""Given and expected: Carlini et al., arXiv 2202.07646."""


def converse(model: "Model", conversation: Conversation, turns: int, max_new_tokens: int) -> Dialogue:
    """Return greedy replies at the first `turns` model turns.

    The model's own earlier replies stand in place of the true ones, so that loops and drift can build up; a context
    too long for the model loses its left end.
    """
    model.use_bos(True)
    history, given, replies, begin = "", [], [], 0
    for turn in conversation.turns[:turns]:
        asked = "".join(conversation.texts[begin:turn])
        history, begin = history + asked, turn + 1
        given.append(asked)
        tokens = model.tok_encode(history)[-(model.max_length - max_new_tokens) :]
        replies.append(_reply(model, tokens, max_new_tokens))
        history += replies[-1].text
    return Dialogue("".join(given), tuple(replies))


@torch.no_grad()
def _reply(model: "Model", tokens: list[int], max_new_tokens: int) -> Reply:
    network, cache = model.model, DynamicCache()
    new: list[int] = []
    fed = torch.tensor([tokens], device=model.device)
    for _ in range(max_new_tokens):
        hidden = network.base_model(input_ids=fed, past_key_values=cache, use_cache=True).last_hidden_state
        token = int(network.get_output_embeddings()(hidden[:, -1]).argmax(-1))
        if token == model.eot_token_id:
            return Reply(str(model.tok_decode(new)), "eos")
        new.append(token)
        # The marker is plain text: its last token may hold more, so the text is looked at, near its end.
        if USER_MARKER in str(model.tok_decode(new[-2 * len(USER_MARKER) :])):
            return Reply(str(model.tok_decode(new)).split(USER_MARKER)[0], "user")
        fed = torch.tensor([[token]], device=model.device)
    return Reply(str(model.tok_decode(new)), "length")


def extract(model: "Model", conversations: Sequence[Conversation]) -> list[tuple[float, float]]:
    """Return for each conversation (log-likelihood of tokens 50 to 99, 1 if greedy decoding gives them all).

    Greedy decoding after the first 50 tokens gives the next 50 exactly if each is the most likely one after the true
    tokens before it: one forward pass tells. Shorter conversations are left out before (`work.EXTRACT_CHARS`).
    """
    model.use_bos(True)
    found = []
    for conversation in conversations:
        tokens = model.tok_encode("".join(conversation.texts))[: 2 * EXTRACT_TOKENS]
        texts = (conversation.id, "")
        request = (texts, tokens[:EXTRACT_TOKENS], tokens[EXTRACT_TOKENS:])
        score, greedy = model._loglikelihood_tokens([request])[0]
        found.append((score, float(greedy)))
    return found
