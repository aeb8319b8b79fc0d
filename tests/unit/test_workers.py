"""Work in several processes: order, errors, killed processes and no process left behind."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from functools import partial

import pytest

from scripts.artifact.digest import ArtifactError
from scripts.artifact.workers import ordered


def squares(limit: int) -> Callable[[int], int]:
    """Return a task that fails above a limit and dies at a negative number."""

    def task(number: int) -> int:
        if number < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if number > limit:
            raise ValueError(f"{number} is too large")
        return number * number

    return task


@pytest.mark.parametrize("processes", [1, 3])
def test_results_come_in_the_order_of_the_chunks(processes: int) -> None:
    drawn = []

    def chunks(count: int):  # type: ignore[no-untyped-def]
        for number in range(count):
            drawn.append(number)
            yield number

    found = []
    for pair in ordered(partial(squares, 100), chunks(20), processes):
        found.append(pair)
        assert len(drawn) <= len(found) + processes, "chunks are not read far ahead"
    assert found == [(n, n * n) for n in range(20)]
    assert list(ordered(partial(squares, 100), [], processes)) == []
    assert list(ordered(partial(squares, 100), [5], processes)) == [(5, 25)]
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_of_a_chunk_is_raised_here(processes: int) -> None:
    with pytest.raises(ValueError, match="9 is too large"):
        list(ordered(partial(squares, 8), range(20), processes))
    assert not multiprocessing.active_children()


def test_a_killed_process_is_one_clear_error() -> None:
    with pytest.raises(ArtifactError, match=r"a worker process ended with code -9 .* fewer --threads or more memory"):
        list(ordered(partial(squares, 100), [1, 2, -1, 3, 4], 2))
    assert not multiprocessing.active_children()
