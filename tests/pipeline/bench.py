"""A copy of the checkout in which tests may change anything, and Snakemake to run there."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import ROOT

COPIED = (
    "Snakefile",
    "rules",
    "scripts",
    "envs",
    "config",
    "profiles",
    "locks",
    "tests/recipes",
    "slurm-a40",
    "slurm-h100",
)
_JOB = re.compile(r"^Job \d+: (\w+) (.*?) \[", re.M)


@dataclass
class Run:
    """What one call of Snakemake did."""

    code: int
    output: str
    jobs: list[str] = field(default_factory=list)
    """Executed jobs as `verb name`, in order: `train sapling`."""

    @property
    def nothing(self) -> bool:
        """Whether there was nothing to be done."""
        return self.code == 0 and "Nothing to be done" in self.output and not self.jobs


@dataclass
class Bench:
    """A working directory with its own copy of the code."""

    folder: Path
    recipe: str = "tests/recipes/tiny.yaml"
    overlays: tuple[str, ...] = ()
    """Recipe files laid over `recipe`, key by key."""

    @classmethod
    def fresh(cls, folder: Path, recipe: str = "tests/recipes/tiny.yaml") -> "Bench":
        """Copy the checkout's code (not its results) to `folder`."""
        folder.mkdir(parents=True)
        for name in COPIED:
            source, target = ROOT / name, folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_symlink():
                target.symlink_to(os.readlink(source))
            elif source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True)
            elif source.exists():
                shutil.copy2(source, target)
        return cls(folder, recipe)

    def copy(self, folder: Path) -> "Bench":
        """Copy code, results and Snakemake's records, times kept."""
        subprocess.run(["cp", "-a", f"{self.folder}/.", str(folder)], check=True)
        return Bench(folder, self.recipe)

    def command(self, *args: str, cores: int = 2) -> list[str]:
        """Return the command line of Snakemake."""
        # The targets come first: --configfile takes every word that follows it.
        base = [sys.executable, "-m", "snakemake", *args, "--cores", str(cores), "--nocolor"]
        return [*base, "--configfile", self.recipe, *self.overlays]

    def environment(self, **extra: str) -> dict[str, str]:
        """Return the environment of a run; the copy's own code is used, not the checkout's."""
        kept = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "OMP_NUM_THREADS"}}
        return {**kept, **extra}

    def run(self, *args: str, cores: int = 2, timeout: int = 1800, umask: int = -1, **env: str) -> Run:
        """Run Snakemake to its end (umask -1: the one of this process)."""
        command = self.command(*args, cores=cores)
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment(**env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            umask=umask,
            check=False,
        )
        return Run(done.returncode, done.stdout, [f"{verb} {name}" for verb, name in _JOB.findall(done.stdout)])

    def run_and_kill(self, when: str, timeout: float = 300, *args: str) -> None:
        """Start Snakemake, wait until a file that matches the glob `when` exists, and kill -9 its process group."""
        process = subprocess.Popen(
            self.command(*args),
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        stop = time.monotonic() + timeout
        seen = False
        while not seen and process.poll() is None and time.monotonic() < stop:
            seen = bool(list(self.folder.glob(when)))
            time.sleep(0.001)
        alive = process.poll() is None
        killed = kill_session(process.pid)
        process.wait()
        assert seen, f"{when} did not appear before the run ended"
        assert alive and killed, f"the run ended before it could be killed at {when}"

    def python(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run `python ...` with the copy's code."""
        return subprocess.run(
            [sys.executable, *args],
            cwd=self.folder,
            env=self.environment(PYTHONPATH=str(self.folder)),
            capture_output=True,
            text=True,
            check=False,
        )

    def sums(self) -> dict[str, str]:
        """Return the text of every SHA256SUMS by artifact."""
        results = self.folder / "results"
        found = sorted(p for p in results.rglob("SHA256SUMS") if ".work" not in p.parts and ".tmp." not in str(p))
        return {str(p.parent.relative_to(results)): p.read_text() for p in found}

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace text in a file, which must hold it."""
        path = self.folder / name
        text = path.read_text()
        assert old in text, f"{name} does not hold {old!r}"
        path.write_text(text.replace(old, new))

    def append(self, name: str, text: str) -> None:
        """Append text to a file."""
        with (self.folder / name).open("a") as handle:
            handle.write(text)


def kill_session(leader: int) -> int:
    """Kill -9 a process and all that it started, whatever process group they are in; return how many."""
    import psutil

    try:
        parent = psutil.Process(leader)
        family = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in family:  # stop them all first: a half-dead tree must not start anything new
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGSTOP)
    family += [p for p in parent.children(recursive=True) if p not in family]
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    return len(family)
