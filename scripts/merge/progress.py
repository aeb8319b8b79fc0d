"""Progress for people, on stderr: share, speed and remaining time. Nothing of it is hashed."""

import sys
import time


class Progress:
    """A line that redraws itself on a terminal, and one line each ten seconds in a log."""

    def __init__(self, label: str, total_bytes: int) -> None:
        self._label, self._total, self._done, self._skipped = label, max(1, total_bytes), 0, 0
        self._begun = self._shown = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def skip(self, count: int) -> None:
        """Count bytes that an earlier attempt wrote; they don't enter the speed."""
        self._done += count
        self._skipped += count

    def advance(self, count: int) -> None:
        """Count bytes written."""
        self._done += count
        now = time.monotonic()
        if now - self._shown >= (0.2 if self._terminal else 10.0) or (self._terminal and self._done >= self._total):
            self._shown = now
            self._show(now)

    def _show(self, now: float) -> None:
        speed = (self._done - self._skipped) / max(1e-9, now - self._begun)
        share, left = self._done / self._total, (self._total - self._done) / max(1.0, speed)
        bar = "#" * int(20 * share)
        text = (
            f"{self._label} [{bar:<20}] {share:4.0%} {self._done / 1e9:.2f} of {self._total / 1e9:.2f} GB, "
            f"{speed / 1e9:.2f} GB/s, {left:.0f} s left"
        )
        if self._terminal:
            print(f"\r{text}", end="\n" if self._done >= self._total else "", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)
