"""Work on chunks in several processes, results in the order of the chunks: the bytes can't depend on the number.

Own code instead of `concurrent.futures`: its workers keep both ends of their queue and outlive a killed parent, and it
puts no bound on chunks in flight, so a slow reader of the results would fill the memory.
"""

import multiprocessing
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from scripts.artifact.digest import ArtifactError

C = TypeVar("C")
R = TypeVar("R")

_END = object()
_Worker = tuple[BaseProcess, "Connection[object, object]"]


def ahead(items: Generator[R], threads: int) -> Iterator[R]:
    """Yield items; where there is a second thread, the next one is made meanwhile.

    Worth it where making or using one spends its time outside of Python: readers of parquet, compiled code.
    """
    with closing(items):
        if threads < 2:
            yield from items
            return
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(next, items, _END)
            while (item := coming.result()) is not _END:
                coming = pool.submit(next, items, _END)
                yield item  # type: ignore[misc]


def ordered(make: Callable[[], Callable[[C], R]], chunks: Iterable[C], processes: int) -> Iterator[tuple[C, R]]:
    """Yield (chunk, result) in the order of the chunks.

    Args:
        make: called once in each process; returns the function of a chunk. A module's function, or a
            `functools.partial` of one, since it travels to new processes; so do chunks and results.
        chunks: read one ahead; one chunk for each process is at work at a time.
        processes: 1 works in this process.

    Raises:
        ArtifactError: a process was killed. What the function raises is raised here.
    """
    if processes <= 1:
        task = make()
        yield from ((chunk, task(chunk)) for chunk in chunks)
        return
    with ExitStack() as open_workers:
        idle = deque(_started(make, open_workers) for _ in range(processes))
        busy: deque[tuple[_Worker, C]] = deque()
        for chunk in chunks:
            if idle:
                worker = idle.popleft()
                worker[1].send(chunk)
                busy.append((worker, chunk))
                continue
            worker, done = busy.popleft()
            result: R = _received(worker)
            # The next chunk goes out before the result is looked at: only this process must never wait for work.
            worker[1].send(chunk)
            busy.append((worker, chunk))
            yield done, result
        while busy:
            worker, done = busy.popleft()
            yield done, _received(worker)


def _started(make: Callable[[], Callable[[C], R]], until: ExitStack) -> _Worker:
    # `spawn`: a forked child would inherit locks that threads of pyarrow hold.
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, make), daemon=True)
    process.start()
    there.close()
    until.callback(process.join)
    until.enter_context(closing(here))  # closed first: the process sees the end and leaves
    return process, here


def _serve(connection: "Connection[object, object]", make: Callable[[], Callable[[C], R]]) -> None:
    """Answer chunks until the other end is closed, also by the death of its process."""
    task = None
    while True:
        try:
            chunk = connection.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            task = task or make()
            answer: tuple[bool, object] = (True, task(chunk))  # type: ignore[arg-type]
        except Exception as error:
            answer = (False, error)
        try:
            connection.send(answer)
        except OSError:  # nobody listens any more
            return


def _received(worker: _Worker) -> Any:
    process, connection = worker
    try:
        answer: Any = connection.recv()
    except (EOFError, ConnectionResetError):
        process.join()
        raise ArtifactError(
            f"a worker process ended with code {process.exitcode} (-9 is what a lack of memory gives); "
            "run the job with fewer --threads or more memory"
        ) from None
    good, value = answer
    if not good:
        raise value
    return value
