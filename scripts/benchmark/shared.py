"""Likelihoods with shared key/value states: a context is computed once for all its continuations.

Shape suffixes: B rows of a pass, T new tokens, P cached tokens, H hidden width, N predictions, V vocabulary.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from scripts.benchmark.tree import MIN_PREFIX, Request, Tree, grow, sharable

PASS_TOKENS = 2048
"""Most padded tokens of one pass, unless a single row is longer: enough to keep a GPU busy with a 7B model."""
_LOGIT_ROWS = 256
"""Predictions at once: 256 x 32,000 float32 take 33 MB."""
_SHORT_TRUNK = 64
"""Contexts up to so many tokens go into one pass with their continuations: a second pass would cost more."""

Score = tuple[float, bool]
"""(sum of natural log-probabilities of the continuation, whether greedy decoding would give it)."""


@dataclass(frozen=True)
class Prefix:
    """Key/value states of tokens that many requests begin with."""

    tokens: tuple[int, ...]
    states: list[tuple[Tensor, Tensor]]
    """For each layer keys and values, [1, heads, P, head width]."""

    def begins(self, requests: Sequence[Request]) -> bool:
        """Whether all requests begin with it, before any prediction that counts."""
        size = len(self.tokens)
        return all(r.begin >= size and r.tokens[:size] == self.tokens for r in requests)


NOTHING = Prefix((), [])


class SharedScorer:
    """Scores groups of items on a causal model of transformers whose logits are `lm_head` of its last hidden states."""

    def __init__(self, model: Any, device: torch.device) -> None:
        self.model = model
        self.device = device
        self.fed_tokens = 0
        """Tokens computed so far, padding included."""

    @torch.no_grad()
    def prefix(self, tokens: tuple[int, ...], head: Prefix = NOTHING) -> Prefix:
        """Return the states of `tokens`, which begin with those of `head`."""
        if len(tokens) - len(head.tokens) < MIN_PREFIX:
            return head
        cache = _cache(head, 1)
        self._causal([tokens[len(head.tokens) :]], len(head.tokens), cache)
        return Prefix(tokens, [(layer.keys, layer.values) for layer in cache.layers])

    @torch.no_grad()
    def score(self, group: Sequence[Sequence[Request]], head: Prefix = NOTHING) -> list[list[Score]]:
        """Return the scores of all requests of a group of items; the bits depend on this group and `head` alone.

        Args:
            group: for each item its requests, each with at least one target.
            head: states that the items may begin with; used only if all of them do.
        """
        if not all(head.begins(requests) for requests in group):
            head = NOTHING
        if len(group) > 1:
            every = [request for requests in group for request in requests]
            head = self.prefix(every[0].tokens[: sharable(every)], head)
        found: dict[int, list[Score]] = {}
        plans = [_plan(requests, len(head.tokens)) for requests in group]
        for kind in ("chain", "short", "long"):
            members = [i for i, plan in enumerate(plans) if plan.kind == kind]
            for batch in _batches(members, [plan.width for plan in plans]):
                found.update(zip(batch, self._batch([plans[i] for i in batch], head, kind), strict=True))
        return [found[i] for i in range(len(group))]

    def _batch(self, plans: Sequence["_Plan"], head: Prefix, kind: str) -> list[list[Score]]:
        trees, start = [plan.tree for plan in plans], len(head.tokens)
        if kind == "chain":
            cache = _cache(head, len(plans)) if start else None
            return self._predict(self._causal([tree.tokens for tree in trees], start, cache), trees)
        cache = _cache(head, len(plans))
        if kind == "long":
            self._causal([plan.trunk for plan in plans], start, cache)
        return self._predict(self._branching(trees, cache), trees)

    def _causal(self, rows: Sequence[Sequence[int]], start: int, cache: Any) -> Tensor:
        """Feed rows that continue the `start` cached tokens; return hidden_BTH. Padding stands right, where no token
        that counts can see it."""
        ids_BT = self._pad(rows)
        width = ids_BT.shape[1]
        mask = None
        if start:
            mask = torch.ones(width, start + width, dtype=torch.bool, device=self.device).tril(start)[None, None]
        return self._hidden(ids_BT, cache, attention_mask=mask)

    def _branching(self, trees: Sequence[Tree], cache: Any) -> Tensor:
        """Feed one tree a row; each continues the first `tree.start` cached tokens of its row. Returns hidden_BTH."""
        ids_BT = self._pad([tree.tokens for tree in trees])
        rows, width = ids_BT.shape
        cached = cache.get_seq_length()
        mask = torch.zeros(rows, 1, width, cached + width, dtype=torch.bool)
        positions_BT = torch.zeros(rows, width, dtype=torch.long)
        for row, tree in enumerate(trees):
            own = mask[row, 0, :, cached:]
            own.fill_diagonal_(True)  # padding sees itself: a softmax over nothing would be NaN
            for node, parent in enumerate(tree.parents):
                if parent >= 0:
                    own[node] |= own[parent]
            mask[row, 0, : len(tree.tokens), : tree.start] = True
            positions_BT[row, : len(tree.tokens)] = torch.tensor(tree.depths)
        places = positions_BT.to(self.device)
        return self._hidden(ids_BT, cache, attention_mask=mask.to(self.device), position_ids=places)

    def _hidden(self, ids_BT: Tensor, cache: Any, **settings: Any) -> Tensor:
        self.fed_tokens += ids_BT.numel()
        output = self.model.base_model(input_ids=ids_BT, past_key_values=cache, use_cache=cache is not None, **settings)
        hidden: Tensor = output.last_hidden_state
        return hidden

    def _predict(self, hidden_BTH: Tensor, trees: Sequence[Tree]) -> list[list[Score]]:
        """Return the scores of every request; logits are computed where a prediction counts, and nowhere else."""
        places = sorted({(row, node) for row, tree in enumerate(trees) for path in tree.wanted for node, _ in path})
        index = {place: i for i, place in enumerate(places)}
        pairs = [(index[row, n], t) for row, tree in enumerate(trees) for path in tree.wanted for n, t in path]
        order = torch.tensor(places, device=self.device)
        hidden_NH = hidden_BTH[order[:, 0], order[:, 1]]
        logp, greedy = zip(*self._look_up(hidden_NH, sorted(set(pairs))), strict=True) if pairs else ((), ())
        value = dict(zip(sorted(set(pairs)), zip(logp, greedy, strict=True), strict=True))
        scores = []
        for row, tree in enumerate(trees):
            looked = [[value[index[row, node], target] for node, target in path] for path in tree.wanted]
            # An exact sum: equal continuations tie whatever their order.
            scores.append([(math.fsum(v for v, _ in path), all(g for _, g in path)) for path in looked])
        return scores

    def _look_up(self, hidden_NH: Tensor, pairs: Sequence[tuple[int, int]]) -> Iterator[tuple[float, bool]]:
        """Yield (log-probability, is the largest) of target tokens, for `pairs` of (row of hidden_NH, token)."""
        head = self.model.get_output_embeddings()
        for first in range(0, len(hidden_NH), _LOGIT_ROWS):
            logits_NV = head(hidden_NH[first : first + _LOGIT_ROWS]).float()
            here = [(row - first, token) for row, token in pairs if first <= row < first + _LOGIT_ROWS]
            rows, tokens = torch.tensor(here, device=self.device).unbind(1)
            best_N = logits_NV.argmax(-1)
            logp_NV = logits_NV.log_softmax(-1)
            yield from zip(logp_NV[rows, tokens].tolist(), (best_N[rows] == tokens).tolist(), strict=True)

    def _pad(self, rows: Sequence[Sequence[int]]) -> Tensor:
        width = max(map(len, rows))
        return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=self.device)


@dataclass(frozen=True)
class _Plan:
    """How one item is computed."""

    trunk: tuple[int, ...]
    """Tokens of the first pass, if it needs one."""
    tree: Tree
    kind: str
    """`chain`: one causal pass; `short`: one pass with a mask; `long`: the trunk, then the branches."""

    @property
    def width(self) -> int:
        """Tokens of its longest row: what it adds to a padded pass."""
        return max(len(self.trunk), len(self.tree.tokens))


def _plan(requests: Sequence[Request], start: int) -> _Plan:
    whole, shared = grow(requests, start), sharable(requests)
    if whole.is_chain:
        return _Plan((), whole, "chain")
    if shared - start <= _SHORT_TRUNK:
        return _Plan((), whole, "short")
    return _Plan(requests[0].tokens[start:shared], grow(requests, shared), "long")


def _batches(members: Sequence[int], widths: Sequence[int]) -> Iterator[list[int]]:
    """Yield members by falling width, as many at once as fit PASS_TOKENS after padding."""
    batch: list[int] = []
    for i in sorted(members, key=lambda i: (-widths[i], i)):
        if batch and widths[batch[0]] * (len(batch) + 1) > PASS_TOKENS:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _cache(head: Prefix, rows: int) -> Any:
    """Return a cache that holds `head` in every row, without copying it."""
    cache = DynamicCache()
    for keys, values in head.states:
        layer = DynamicLayer()  # type: ignore[no-untyped-call]
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1)
        cache.layers.append(layer)
    return cache
