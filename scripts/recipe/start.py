"""The start of a program: what its libraries would load for nothing, and what loading costs beside the reading."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder


@contextmanager
def left_out(name: str) -> Iterator[None]:
    """Let a package seem not to be installed while the block runs, unless it is loaded already.

    Made for scipy: transformers loads scipy.optimize with every model, 0.4 s of CPU time, for its losses of object
    detection, and does without where there is none.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # Python's own way to say that there is no such module
    try:
        yield
    finally:
        del sys.modules[name]


@contextmanager
def uncollected() -> Iterator[None]:
    """Load libraries and models without Python's search for garbage, and spare what they leave from later searches.

    Loading torch, transformers and lm-eval makes 600,000 objects that all stay, and the collector went through them
    again and again: 0.9 of 6.0 s of CPU time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()


class _NoPandas(MetaPathFinder):
    """The answer to `import pandas` where a None in sys.modules will not do: compiled code takes it for the module."""

    def find_spec(self, name: str, *_: object) -> None:
        """Refuse pandas, as if it were not installed; leave all else to the other finders."""
        if name == "pandas":
            raise ModuleNotFoundError("left out", name=name)


def arrow_alone() -> None:
    """Let pyarrow make up its mind that there is no pandas, for the rest of the process, unless that is loaded already.

    Its first array loads pandas, 0.3 s of CPU time, to see whether a list is one of its objects; ours never is. Call it
    where nothing afterwards wants a pandas object.
    """
    import pyarrow as pa

    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([None])
    finally:
        sys.meta_path.remove(finder)
