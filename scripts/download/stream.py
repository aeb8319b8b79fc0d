"""Receive a file by HTTP: go on where an earlier attempt stopped, wait when the server asks for it."""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from scripts.artifact.stage import StageError
from scripts.download.part import PartFile

if TYPE_CHECKING:
    import httpx2

TRIES = 7
"""Attempts in a row without one new byte; with the waits below that is about two minutes of outage."""
LONGEST_WAIT_S = 60.0
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 522, 524})
_TIMEOUT_S = 60.0


class RefusedError(StageError):
    """The server gave a final answer other than the file."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"status {status} {code}".strip())
        self.status, self.code = status, code


class _Interrupted(Exception):
    """Try again: a broken connection, a busy server, a part that doesn't fit."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


def receive(
    client: "httpx2.Client",
    url: str,
    headers: Mapping[str, str],
    part: PartFile,
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Append the bytes of `url` to `part` until the file is complete.

    Raises:
        RefusedError: a status that waiting doesn't mend (401, 403, 404, ...).
        StageError: no new byte in `TRIES` attempts in a row. What was received stays for the next run.
    """
    failures, most = 0, part.size
    while True:
        try:
            return _receive_once(client, url, headers, part)
        except _Interrupted as error:
            failures = 1 if part.size > most else failures + 1
            most = max(most, part.size)
            if failures >= TRIES:
                raise StageError(
                    f"{part.name}: gave up after {TRIES} attempts without a new byte ({error}); "
                    f"{part.size:,} bytes are kept, run snakemake again to go on"
                ) from None
            sleep(min(max(error.wait_s, 2.0 ** (failures - 1)), LONGEST_WAIT_S))


def _receive_once(client: "httpx2.Client", url: str, headers: Mapping[str, str], part: PartFile) -> None:
    import httpx2

    total = part.expected.bytes
    if total is not None and part.size == total:
        return
    # Compressed transfers would make byte ranges meaningless.
    asked = {**headers, "Accept-Encoding": "identity"}
    if part.size:
        asked["Range"] = f"bytes={part.size}-"
    try:
        with client.stream("GET", url, headers=asked, follow_redirects=True, timeout=_TIMEOUT_S) as response:
            if not _ready(response, part):
                return
            for block in response.iter_bytes():  # as they come: a full block would be lost with its connection
                part.write(block)
    except httpx2.TransportError as error:
        raise _Interrupted(f"{type(error).__name__}: {error}") from None
    except httpx2.HTTPError as error:
        raise StageError(f"{part.name}: {type(error).__name__}; check the address in the recipe") from None
    except httpx2.InvalidURL as error:
        raise StageError(f"{part.name}: not an address: {error}") from None
    if total is not None and part.size < total:
        raise _Interrupted(f"ended after {part.size:,} of {total:,} bytes")


def _ready(response: "httpx2.Response", part: PartFile) -> bool:
    """Return whether bytes for `part` follow; False if the part is already the whole file."""
    status = response.status_code
    if status == 206 and _first_byte(response) == part.size and "Content-Encoding" not in response.headers:
        return True
    if status == 200:
        if part.size:  # the server ignores ranges
            part.restart()
        return True
    if status == 416 and response.headers.get("Content-Range", "").endswith(f"/{part.size}"):
        return False  # nothing follows: the digest decides whether it is the file
    if status in {206, 416}:
        part.restart()
        raise _Interrupted(f"status {status}: the server's range doesn't continue the part")
    if status in _RETRIED:
        raise _Interrupted(f"status {status}", _retry_after(response))
    if status in {401, 403} and response.history:
        # A storage host refuses a signed address that has grown old; the next attempt gets a new one.
        raise _Interrupted(f"status {status} from the storage host")
    raise RefusedError(status, response.headers.get("X-Error-Code", ""))


def _first_byte(response: "httpx2.Response") -> int:
    text = response.headers.get("Content-Range", "").removeprefix("bytes ").split("-")[0]
    return int(text) if text.isdecimal() else -1


def _retry_after(response: "httpx2.Response") -> float:
    """Return the seconds that the server asks to wait; dates (rare) count as none."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else 0.0
