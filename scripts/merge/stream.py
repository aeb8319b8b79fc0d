"""Reader and writer threads: chunks are blended side by side, written and hashed in order.

With n threads, one writes and hashes the file, one hashes the tensors (from 3 on), the others read and blend. What a
chunk becomes and the order in which results are taken depend on the plan alone, so bits don't depend on n.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import torch

from scripts.artifact.tensors import ITEM_BYTES
from scripts.merge.arithmetic import Part, Recipe, Scratch, blend_chunk
from scripts.merge.chunks import Buffers, Files, Span, spans
from scripts.merge.figures import Distances, slerp_weights
from scripts.merge.plan import Plan, TensorPlan

_Submit = Callable[[Span, Recipe, Buffers], "Future[Part]"]


@dataclass(frozen=True)
class Blended:
    """One finished chunk; `content` is only valid until the next one is asked for."""

    span: Span
    content: memoryview
    part: Part


@dataclass
class _Pending:
    """One chunk on its way."""

    span: Span
    recipe: Recipe
    buffers: Buffers
    future: "Future[Part]"


class Blender:
    """Turns the tensors of a plan into finished chunks."""

    def __init__(self, plan: Plan, files: Files, threads: int, figures: bool = True) -> None:
        self.plan, self.files, self.figures = plan, files, figures
        self.workers = max(0, threads - 1 - (threads > 2))
        """Threads that blend; with 0 the caller's own thread does everything."""
        self._local = threading.local()
        self._free = deque(Buffers() for _ in range(self.workers + 3))
        # torch's own threads would fight with ours (two OpenMP threads on a busy machine tripled the CPU time).
        torch.set_num_threads(1)
        for tensor in plan.tensors.values():
            for at in (tensor.first, tensor.second):
                files.open(at.path)

    def blended(self, tensors: Iterable[TensorPlan]) -> Iterator[Blended]:
        """Yield the chunks of these tensors in order.

        Raises:
            StageError: NaN or infinity in an input, or a file that ends early.
        """
        work = ((span, recipe) for tensor in tensors for recipe in [self._recipe(tensor)] for span in spans(tensor))
        with ExitStack() as stack:
            submit: _Submit = self._inline
            if self.workers:
                pool = stack.enter_context(ThreadPoolExecutor(self.workers))
                stack.callback(pool.shutdown, cancel_futures=True)
                submit = _submitter(pool, self._blend)
            waiting: deque[_Pending] = deque()
            ahead = self.workers + 2 if self.workers else 1
            for span, recipe in work:
                buffers = self._free.popleft()
                waiting.append(_Pending(span, recipe, buffers, submit(span, recipe, buffers)))
                if len(waiting) >= ahead:
                    yield from self._take(waiting)
            while waiting:
                yield from self._take(waiting)

    def _take(self, waiting: "deque[_Pending]") -> Iterator[Blended]:
        """Yield the oldest chunk. While a worker still blends it, this thread takes over one that nobody began: with
        two threads, blending (6.7 s for 2.5 GB) and hashing with writing (4.3 s) are otherwise uneven halves."""
        first = waiting.popleft()
        for later in waiting:
            if first.future.done():
                break
            if later.future.cancel():
                later.future = self._inline(later.span, later.recipe, later.buffers)
        part = first.future.result()
        size = (first.span.stop - first.span.start) * ITEM_BYTES[self.plan.dtype]
        yield Blended(first.span, first.buffers.out.data[:size], part)
        self._free.append(first.buffers)

    def _inline(self, span: Span, recipe: Recipe, buffers: Buffers) -> "Future[Part]":
        future: Future[Part] = Future()
        future.set_result(self._blend(span, recipe, buffers))
        return future

    def _blend(self, span: Span, recipe: Recipe, buffers: Buffers) -> Part:
        scratch: Scratch | None = getattr(self._local, "scratch", None)
        if scratch is None:
            scratch = self._local.scratch = Scratch()
        return blend_chunk(self.files.load(span, buffers, self.plan.dtype), recipe, scratch, self.figures)

    def _recipe(self, tensor: TensorPlan) -> Recipe:
        """Return a tensor's steps; slerp reads the tensor once more to know the angle between the models."""
        recipe = Recipe.of(tensor.blend.ratios)
        if not (self.plan.slerp and recipe.steps):
            return recipe
        distances, buffers, scratch = Distances(), self._free.popleft(), Scratch()
        for span in spans(tensor):
            if span.second is not None:
                chunk = self.files.load(span, buffers, "F32")
                distances.add(blend_chunk(chunk, Recipe.of((1.0,)), scratch))
        self._free.append(buffers)
        return Recipe.weighted(*slerp_weights(distances, tensor.blend.ratio))


def _submitter(pool: ThreadPoolExecutor, work: Callable[[Span, Recipe, Buffers], Part]) -> "_Submit":
    def submit(span: Span, recipe: Recipe, buffers: Buffers) -> "Future[Part]":
        return pool.submit(work, span, recipe, buffers)

    return submit
