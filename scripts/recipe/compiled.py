"""Compiled functions, and a folder in which their machine code stays for the next process.

Compiling takes 2 to 5 s of a process, more than a small source does. numba's own cache is wrong for us: it asks for the
date of a function's file and not for the functions that it calls, takes damaged files for code, and lies beside the
sources. Here the folder's name is a digest of the files that compile, and what is read is checked.
"""

import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile

P = ParamSpec("P")
R = TypeVar("R")

_DISPATCHERS: list[Any] = []
_kept_in: Path | None = None
_DIGEST_BYTES = 32


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile on first use, without the interpreter's lock; `keep_compiled` spares the next process the work."""
    result: Callable[P, R] = numba.njit(nogil=True)(function)
    _DISPATCHERS.append(result)
    if _kept_in is not None:  # a module that was loaded late, as it is not always needed
        _keep([result], _kept_in)
    return result


def keep_compiled(folder: Path) -> None:
    """Read machine code from `folder`, and write there what it lacks; a failure costs only the time to compile.

    Processors are told apart, so the nodes of a cluster may share a folder. It belongs to one user: machine code that
    others could write is not run.

    Args:
        folder: made if it isn't there; gets one folder for each state of the code.
    """
    global _kept_in
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError:
        return
    if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return
    _kept_in = folder
    _keep(_DISPATCHERS, folder)


def _keep(dispatchers: list[Any], folder: Path) -> None:
    numba.config.CACHE_DIR = str(folder / _state_of_code())  # type: ignore[attr-defined]
    for dispatcher in dispatchers:
        if not dispatcher.overloads:
            dispatcher._cache = _Kept(dispatcher.py_func)


def _state_of_code() -> str:
    """Return a digest of all files with a compiled function so far: those of one are compiled into those of another.

    What a function calls is loaded before it, or stands in its own file; so nothing is missing.
    """
    files = {dispatcher.py_func.__code__.co_filename for dispatcher in _DISPATCHERS}
    digests = [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in sorted(files)]
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16]


class _Checked(IndexDataCacheFile):
    """numba's files, each with the digest of the rest at its end: what a crash cut short is not run."""

    @contextmanager
    def _open_for_write(self, filepath: str) -> Iterator[io.BytesIO]:
        with super()._open_for_write(filepath) as file:
            written = io.BytesIO()
            yield written
            raw = written.getvalue()
            file.write(raw + hashlib.sha256(raw).digest())

    def _load_index(self) -> Any:
        return super()._load_index() if _sound(self._index_path) else {}  # type: ignore[no-untyped-call]

    def load(self, key: Any) -> Any:
        """Return the machine code of one signature, or None."""
        name = self._load_index().get(key)
        if name is None or not _sound(self._data_path(name)):  # type: ignore[no-untyped-call]
            return None
        return self._load_data(name)  # type: ignore[no-untyped-call]


def _sound(path: str) -> bool:
    try:
        raw = Path(path).read_bytes()
    except OSError:
        return False
    return hashlib.sha256(raw[:-_DIGEST_BYTES]).digest() == raw[-_DIGEST_BYTES:]


class _Kept(FunctionCache):
    """numba's cache of one function, for which it is no error that a file can't be written."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        # Not the file's date: the folder's name says what was compiled, and a fresh clone has fresh dates.
        self._cache_file = _Checked(self._cache_path, self._impl.filename_base, None)  # type: ignore[no-untyped-call]

    def save_overload(self, sig: Any, data: Any) -> None:
        """Write the machine code of one signature."""
        try:
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]
        except OSError:
            return
