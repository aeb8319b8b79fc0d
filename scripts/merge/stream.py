"""Threads of a merge: chunks are blended side by side, written and hashed in order.

With n threads, the caller's writes and hashes the files, n - 1 read and blend, and hash each tensor for itself; the
caller blends too while it would wait. What a chunk becomes and the order in which results are taken depend on the plan
alone, so bits don't depend on n.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from scripts.artifact.tensors import ITEM_BYTES
from scripts.merge.arithmetic import Part, Recipe, Scratch, blend_chunk
from scripts.merge.chunks import Buffers, Files, Span, spans
from scripts.merge.figures import Distances, slerp_weights
from scripts.merge.plan import Plan, TensorPlan

R = TypeVar("R")


@dataclass
class Blended:
    """One finished chunk; `content` is only valid until the next one is asked for, or what it is lent to is done."""

    span: Span
    content: memoryview
    part: Part
    lent: list["Future[None]"] = field(default_factory=list)
    """Work that still reads `content`: its memory is not used again before."""


@dataclass
class _Pending:
    """One chunk on its way."""

    span: Span
    recipe: Recipe
    buffers: Buffers
    future: "Future[Part]"


class Blender:
    """Turns the tensors of a plan into finished chunks."""

    def __init__(self, plan: Plan, files: Files, threads: int) -> None:
        self.plan, self.files = plan, files
        self.workers = max(0, threads - 1)
        """Threads beside the caller's; with 0 that one does everything."""
        self._pool: ThreadPoolExecutor | None = None
        self._local = threading.local()
        self._free: deque[tuple[Buffers, list[Future[None]]]] = deque()
        for tensor in plan.tensors.values():
            for at in (tensor.first, tensor.second):
                files.open(at.path)

    def blended(self, tensors: Iterable[TensorPlan]) -> Iterator[Blended]:
        """Yield the chunks of these tensors in order.

        Raises:
            StageError: NaN or infinity in an input, or a file that ends early.
        """
        ahead = self.workers + 2 if self.workers else 1
        while len(self._free) < ahead + 2:
            self._free.append((Buffers(), []))
        with ExitStack() as stack:
            if self.workers:
                self._pool = stack.enter_context(ThreadPoolExecutor(self.workers))
                stack.callback(self._pool.shutdown, cancel_futures=True)
            waiting: deque[_Pending] = deque()
            for span, recipe in ((s, r) for tensor in tensors for r in [self._recipe(tensor)] for s in spans(tensor)):
                buffers = self._unused()
                future = self.submit(partial(self._blend, span, recipe, buffers))
                waiting.append(_Pending(span, recipe, buffers, future))
                if len(waiting) >= ahead:
                    yield from self._take(waiting)
            while waiting:
                yield from self._take(waiting)
            for _, lent in self._free:
                _finish(lent)

    def submit(self, work: Callable[[], R]) -> "Future[R]":
        """Do something in a worker: begun in the order of these calls, or at once where there is no worker."""
        if self._pool is not None:
            return self._pool.submit(work)
        future: Future[R] = Future()
        future.set_result(work())
        return future

    def _unused(self) -> Buffers:
        buffers, lent = self._free.popleft()
        _finish(lent)
        return buffers

    def _take(self, waiting: "deque[_Pending]") -> Iterator[Blended]:
        """Yield the oldest chunk. While a worker still blends it, this thread takes over what nobody has begun: with
        two threads, what a chunk costs here and in the worker are otherwise uneven halves."""
        first = waiting[0]
        for pending in waiting:
            if first.future.done():
                break
            if pending.future.cancel():
                pending.future = Future()
                pending.future.set_result(self._blend(pending.span, pending.recipe, pending.buffers))
        waiting.popleft()
        part = first.future.result()
        size = (first.span.stop - first.span.start) * ITEM_BYTES[self.plan.dtype]
        blended = Blended(first.span, first.buffers.out.data[:size], part)
        yield blended
        self._free.append((first.buffers, blended.lent))

    def _blend(self, span: Span, recipe: Recipe, buffers: Buffers) -> Part:
        scratch: Scratch | None = getattr(self._local, "scratch", None)
        if scratch is None:
            scratch = self._local.scratch = Scratch()
        return blend_chunk(self.files.load(span, buffers, self.plan.dtype), recipe, scratch)

    def _recipe(self, tensor: TensorPlan) -> Recipe:
        """Return a tensor's steps; slerp reads the tensor once more to know the angle between the models."""
        recipe = Recipe.of(tensor.blend.ratios)
        if not (self.plan.slerp and recipe.steps):
            return recipe
        distances, buffers, scratch = Distances(), self._unused(), Scratch()
        for span in spans(tensor):
            if span.second is not None:
                chunk = self.files.load(span, buffers, "F32")
                distances.add(blend_chunk(chunk, Recipe.of((1.0,)), scratch))
        self._free.append((buffers, []))
        return Recipe.weighted(*slerp_weights(distances, tensor.blend.ratio))


def _finish(lent: "Iterable[Future[None]]") -> None:
    for future in lent:
        future.result()
