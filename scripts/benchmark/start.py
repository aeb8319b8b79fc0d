"""A benchmark job's start: libraries that its libraries would load for nothing."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


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
