"""The original run's packing: shuffled rows in order, a micro-batch closed when the next row would overflow it."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def permutation(count: int, seed: int) -> NDArray[np.int64]:
    """Return what `torch.randperm(count)` gives with a CPU generator seeded `seed` (its low 32 bits).

    torch's method: 32-bit Mersenne Twister words, Fisher-Yates from the front. numpy keeps `RandomState`'s stream
    for ever, so the schedule depends on no torch version. Equality with torch is a test.
    """
    words = np.frombuffer(np.random.RandomState(seed % (1 << 32)).bytes(4 * count), dtype="<u4").tolist()
    order = list(range(count))
    for i in range(count - 1):
        j = i + words[i] % (count - i)
        order[i], order[j] = order[j], order[i]
    return np.array(order, dtype=np.int64)


def walked(rows: Iterable[int], lengths: NDArray[np.int64], capacity: int) -> list[list[int]]:
    """Return micro-batches of one rank; within each, rows stand in descending length (equal ones as walked)."""
    sizes, room = lengths.tolist(), -1
    batches: list[list[int]] = []
    for row in rows:
        if sizes[row] > room:
            batches.append([])
            room = capacity
        batches[-1].append(row)
        room -= sizes[row]
    return [sorted(batch, key=lambda row: -sizes[row]) for batch in batches]


def stretched(batches: list[list[int]], count: int) -> list[list[int]]:
    """Return exactly `count` micro-batches: the first ones, or, if there are fewer, with the fullest ones halved.

    Ranks and epochs differ in how many they fill, and all ranks must take as many steps. Only when single rows are
    all that is left do empty micro-batches follow at the end.
    """
    result = batches[:count]
    while len(result) < count:
        fullest = max(range(len(result)), key=lambda i: len(result[i]), default=-1)
        if fullest < 0 or len(result[fullest]) < 2:
            return result + [[] for _ in range(count - len(result))]
        batch = result[fullest]
        result[fullest : fullest + 1] = [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
    return result
