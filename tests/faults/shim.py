"""The shims of shim.c and world.c, compiled once a folder, and the environments that load them."""

import functools
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SECONDS_A_YEAR = 31_557_600


@functools.cache
def compiled(folder: Path, name: str = "shim") -> Path:
    """Return the shared library of `<name>.c`, built by gcc in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / f"{name}.so"
    source = Path(__file__).with_name(f"{name}.c")
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def other_time(folder: Path, years: int) -> dict[str, str]:
    """Return the environment of a program whose time of day is `years` off."""
    return {"LD_PRELOAD": str(compiled(folder, "world")), "WORLD_SHIFT": str(years * SECONDS_A_YEAR)}


def no_network(folder: Path) -> dict[str, str]:
    """Return the environment of a program that reaches no other machine; `folder/net.log` then holds its attempts."""
    return {"LD_PRELOAD": str(compiled(folder, "world")), "WORLD_NET": str(folder / "net.log")}


def needs_gcc() -> pytest.MarkDecorator:
    """Skip, with the reason, where nothing compiles the shim."""
    return pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed: no fault shim")


@dataclass
class Shim:
    """One use of the shim: what counts, and what happens at which event."""

    folder: Path
    """Holds the library, the shared count and the log."""
    root: Path
    match: str = ""
    kinds: str = "wrsum"
    at: int = 0
    """Number of the event that goes wrong; 0: none, only count."""
    do: str = "stop"

    def environment(self) -> dict[str, str]:
        """Start a new count and return the variables of the shim."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.state.write_bytes(bytes(8))
        self.fired_file.unlink(missing_ok=True)
        self.log.unlink(missing_ok=True)
        variables = {
            "LD_PRELOAD": str(compiled(self.folder)),
            "SHIM_ROOT": str(self.root),
            "SHIM_MATCH": self.match,
            "SHIM_KINDS": self.kinds,
            "SHIM_STATE": str(self.state),
            "SHIM_LOG": str(self.log),
        }
        return {**variables, "SHIM_AT": str(self.at), "SHIM_DO": self.do} if self.at else variables

    @property
    def state(self) -> Path:
        """File of the count."""
        return self.folder / "state"

    @property
    def log(self) -> Path:
        """File of the counted events: `pid kind path`."""
        return self.folder / "log"

    @property
    def fired_file(self) -> Path:
        """Written when a process was stopped."""
        return self.folder / "state.fired"

    def count(self) -> int:
        """Return how many events were counted."""
        (number,) = struct.unpack("<q", self.state.read_bytes())
        return int(number)

    def events(self) -> list[tuple[int, str, str]]:
        """Return the counted events as (process, kind, path below the root)."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return [_event(line, self.root) for line in lines]

    def fired(self) -> tuple[int, str, str] | None:
        """Return (process, kind, path) of the process that was stopped before its event, if one was."""
        text = self.fired_file.read_text(errors="replace") if self.fired_file.exists() else ""
        return _event(text.rstrip("\n"), self.root) if text.endswith("\n") else None


def _event(line: str, root: Path) -> tuple[int, str, str]:
    pid, kind, path = line.split(" ", 2)
    return int(pid), kind, path.removeprefix(f"{root}/")
