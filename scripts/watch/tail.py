"""Reading files that grow, each byte once."""

from pathlib import Path

_CHUNK = 16_000_000


class Tail:
    """Lines of a growing file; a missing file has none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.changed = 0.0
        """When the file was last written, seconds since 1970."""
        self._offset, self._rest = 0, b""

    def restarted(self) -> bool:
        """Whether the file is shorter than what was read: it was cut back, as metrics are on a resume."""
        try:
            return self.path.stat().st_size < self._offset
        except OSError:
            return False

    def lines(self) -> list[str]:
        """Return the whole lines since the last call; the beginning of a line waits for its end."""
        if self.restarted():
            self._offset, self._rest = 0, b""
        try:
            self.changed = self.path.stat().st_mtime
            with self.path.open("rb") as handle:
                handle.seek(self._offset)
                content = handle.read(_CHUNK)
        except OSError:
            return []
        self._offset += len(content)
        *whole, self._rest = (self._rest + content).split(b"\n")
        return [line.decode("utf-8", "replace") for line in whole]


def last_lines(path: Path, count: int, most_bytes: int = 8192) -> list[str]:
    """Return the last lines of a file, printable characters alone; a progress line counts by its last state."""
    try:
        with path.open("rb") as handle:
            handle.seek(max(0, handle.seek(0, 2) - most_bytes))
            text = handle.read().decode("utf-8", "replace")
    except OSError:
        return []
    lines = ("".join(c for c in line.split("\r")[-1] if c.isprintable()).strip() for line in text.split("\n"))
    return [line for line in lines if line][-count:]
