"""Which two candidates stand beside each other, where, and on which side: by a keyed hash that no tester can redo."""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from scripts.artifact.stage import StageError
from scripts.blind.replies import Answered

_SECRET_FILES = ("samples.parquet", "generations.parquet")


@dataclass(frozen=True)
class Comparison:
    """Two replies to one conversation."""

    id: str
    conversation: Answered
    left: str
    """Name of a candidate; stands in the key alone."""
    right: str


def secret_of(benchmarks: Mapping[str, Path]) -> bytes:
    """Return a secret that the same artifacts give on every machine.

    Made of every likelihood and reply of all candidates: neither the page nor a public lock holds them, so only who
    has the models or the results can find out who is who; and they could by the replies themselves.
    """
    digest = hashlib.sha256(b"atelier blind test\n")
    for model, folder in sorted(benchmarks.items()):
        for path in (folder / name for name in _SECRET_FILES):
            content = path.read_bytes() if path.is_file() else b""
            digest.update(f"{model}\0{path.name}\0{len(content)}\0".encode() + content)
    return digest.digest()


def choose(answered: Sequence[Answered], candidates: Sequence[str], most: int, secret: bytes) -> list[Comparison]:
    """Return at most `most` comparisons, the pairs of candidates as even as can be, sides shuffled.

    In each pair either candidate stands on the left as often as on the right, give or take one. Equal answers are not
    compared: nobody could tell them apart.

    Raises:
        StageError: nothing is left to compare.
    """

    def draw(*parts: object) -> str:
        return hmac.new(secret, "\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass"), "sha256").hexdigest()

    queues = []
    for pair in sorted(combinations(candidates, 2), key=lambda pair: draw("pair", *pair)):
        differing = [a for a in answered if a.answers[pair[0]] != a.answers[pair[1]]]
        queues.append((pair, sorted(differing, key=lambda a: draw("conversation", *pair, a.source, a.id))))
    chosen: list[Comparison] = []
    for turn in range(len(answered)):
        for pair, queue in queues:
            if turn < len(queue) and len(chosen) < most:
                swapped = (turn + int(draw("side", *pair), 16)) % 2
                left, right = pair[::-1] if swapped else pair
                name = draw("id", *pair, queue[turn].source, queue[turn].id)[:12]
                chosen.append(Comparison(name, queue[turn], left, right))
    if not chosen:
        raise StageError(
            f"nothing to compare: {len(answered)} conversations may be shown, and the candidates "
            f"{', '.join(candidates)} answered them alike; raise the task's limit, or set blind_test.show_private"
        )
    return sorted(chosen, key=lambda c: draw("order", c.id))
