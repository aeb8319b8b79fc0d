"""Requests as a token tree: what requests of an item have in common is computed once. No torch in here."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

MIN_PREFIX = 16
"""Shortest prefix, in tokens, that is worth a pass of its own."""
_MARGIN = 4
"""A prefix found in two texts ends so many tokens early: the last tokens change with what follows them."""


@dataclass(frozen=True)
class Request:
    """One continuation: `tokens` are fed, and the last `len(targets)` positions predict `targets`."""

    tokens: tuple[int, ...]
    targets: tuple[int, ...]

    @property
    def begin(self) -> int:
        """First position whose prediction counts."""
        return len(self.tokens) - len(self.targets)


def make_request(context: Sequence[int], continuation: Sequence[int], max_length: int) -> Request:
    """Return the request as lm-eval feeds it: the last token is only predicted, an over-long input loses its left end.

    Source:
        lm-eval 0.4.13, `HFLM._loglikelihood_tokens`.
    """
    fed = tuple((*context, *continuation)[-(max_length + 1) :][:-1])
    return Request(fed, tuple(continuation))


def common_prefix(sequences: Sequence[tuple[int, ...]] | Sequence[str]) -> int:
    """Return how many leading elements all sequences share: the first and last in order decide."""
    low: Sequence[object] = min(sequences)
    high: Sequence[object] = max(sequences)
    shorter = min(len(low), len(high))
    return next((i for i in range(shorter) if low[i] != high[i]), shorter)


def sharable(requests: Sequence[Request]) -> int:
    """Return how many leading tokens all requests share before the first prediction that counts."""
    return min(common_prefix([r.tokens for r in requests]), min(r.begin for r in requests))


def safe_prefix(first: tuple[int, ...], last: tuple[int, ...]) -> tuple[int, ...]:
    """Return the tokens that two encoded texts, and likely all texts between them, begin with; or none."""
    shared = common_prefix([first, last]) - _MARGIN
    return first[:shared] if shared >= MIN_PREFIX else ()


@dataclass(frozen=True)
class Tree:
    """Tokens after a prefix of `start` tokens; each sees the prefix, its ancestors and itself."""

    start: int
    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    """Index of the token before; -1 for those that follow the prefix. Parents precede their children."""
    wanted: tuple[tuple[tuple[int, int], ...], ...]
    """For each request (node, target): the node's prediction of that token counts."""

    @cached_property
    def depths(self) -> tuple[int, ...]:
        """Position of each token in its own sequence."""
        found: list[int] = []
        for parent in self.parents:
            found.append(self.start if parent < 0 else found[parent] + 1)
        return tuple(found)

    @property
    def is_chain(self) -> bool:
        """Whether there is but one branch: plain causal attention does."""
        return all(parent == node - 1 for node, parent in enumerate(self.parents))


def grow(requests: Sequence[Request], start: int) -> Tree:
    """Return the tree of the requests' tokens from position `start` on; equal beginnings become one branch."""
    tokens: list[int] = []
    parents: list[int] = []
    known: dict[tuple[int, int], int] = {}
    wanted = []
    for request in requests:
        node, path = -1, []
        for token in request.tokens[start:]:
            child = known.get((node, token))
            if child is None:
                child = known[(node, token)] = len(tokens)
                tokens.append(token)
                parents.append(node)
            node = child
            path.append(node)
        wanted.append(tuple(zip(path[len(path) - len(request.targets) :], request.targets, strict=True)))
    return Tree(start, tuple(tokens), tuple(parents), tuple(wanted))


def group_items(contexts: Sequence[str], size: int) -> list[range]:
    """Cut the items of a task into runs that are computed together, by their texts alone.

    At most `size` neighbours; a run of neighbours with one passage in common stays apart from the others. A result's
    bits depend on its run and on nothing else, so shards and single items may be computed anywhere, in any order.
    """
    if not contexts:
        return []
    same = common_prefix(contexts)
    groups, begin, sharing = [], 0, False
    for i in range(1, len(contexts)):
        # 256 characters: about 64 tokens, below which a pass of its own costs more than it saves.
        joins = common_prefix(contexts[i - 1 : i + 1]) >= same + 256
        if i - begin == 1:
            sharing = joins
        elif i - begin == size or (sharing and not joins):
            groups.append(range(begin, i))
            begin, sharing = i, False
        elif joins and not sharing:
            groups.append(range(begin, i - 1))
            begin, sharing = i - 1, True
        if i - begin >= size:
            groups.append(range(begin, i))
            begin, sharing = i, False
    groups.append(range(begin, len(contexts)))
    return groups
