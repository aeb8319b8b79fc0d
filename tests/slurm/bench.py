"""The recipe and the real profiles, scaled down to a private Slurm, and Snakemake to run there."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.pipeline.bench import Bench, Run, kill_session
from tests.slurm.cluster import ACCOUNT, Cluster

RANKS = 2
"""Training processes of a node, each behind a fake GPU."""


@dataclass
class SlurmBench:
    """A working directory whose jobs go to the private Slurm."""

    bench: Bench
    cluster: Cluster
    profile: str = "slurm-h100"
    changes: dict[str, object] = field(default_factory=dict)
    """Keys laid over the profile, as a user would edit them."""
    nodes: int = 1
    """Nodes of the training, as the recipe has them; for what Slurm counts there."""

    def write_profile(self) -> str:
        """Write the real profile with what only the size of this cluster changes; return its folder's name."""
        source = self.bench.folder / "profiles" / self.profile / "profile.yaml"
        profile = yaml.safe_load(source.read_text())
        profile["configfile"] = [self.bench.recipe, *self.bench.overlays]
        # A cluster's figures are 20 and 120: these tests wait for many jobs, and the disk is local.
        profile["slurm-init-seconds-before-status-checks"] = 2
        profile["latency-wait"] = 20
        profile["default-resources"]["slurm_account"] = ACCOUNT
        # CPU ranks behind fake GPUs: the recipe says `device: cpu`, Slurm counts two GPUs a node.
        train = profile["set-resources"]["train_model"]
        train.update(gpu=RANKS * self.nodes, mem_mb=4000)
        if self.nodes > 1:
            gpus = f"--gpus-per-node={train['gpu_model']}:{RANKS}"
            train.update(slurm_extra=f"--signal=TERM@120 --ntasks-per-node=1 {gpus}")
        for key, value in self.changes.items():
            block, _, name = key.rpartition("/")
            target = profile
            for part in filter(None, block.split("/")):
                target = target.setdefault(part, {})
            target[name] = value
        folder = self.bench.folder / f"scaled-{self.profile}"
        folder.mkdir(exist_ok=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(profile))
        return folder.name

    def start(self, *targets: str) -> subprocess.Popen[str]:
        """Start `snakemake --profile ...` in a session of its own; output goes to `snakemake.out`."""
        command = [sys.executable, "-m", "snakemake", *targets, "--profile", self.write_profile(), "--nocolor"]
        with self.output.open("w") as out:
            return subprocess.Popen(
                command,
                cwd=self.bench.folder,
                # Every node is this machine: gloo finds its other ranks on the loopback.
                env=self.bench.environment(**self.cluster.environment(), GLOO_SOCKET_IFNAME="lo"),
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    @property
    def output(self) -> Path:
        """What the last `snakemake` printed."""
        return self.bench.folder / "snakemake.out"

    def finish(self, process: subprocess.Popen[str], timeout: float = 900) -> Run:
        """Wait for a started run; kill it after `timeout` seconds."""
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            kill_session(process.pid)
            process.wait()
            raise AssertionError(f"snakemake ran for {timeout} s\n{self.report()}") from None
        return Run(code, self.output.read_text())

    def run(self, *targets: str, timeout: float = 900) -> Run:
        """Run to the end."""
        return self.finish(self.start(*targets), timeout)

    def wait_for(self, what: str, ready: Callable[[], object], timeout: float = 300) -> None:
        """Wait until `ready()` is true."""
        stop = time.monotonic() + timeout
        while not ready():
            assert time.monotonic() < stop, f"waited {timeout} s for {what}\n{self.report()}"
            time.sleep(0.2)

    def jobs(self, rule: str, *states: str) -> list[str]:
        """Return the ids of this directory's Slurm jobs of one rule, in these states (default: any)."""
        lines = [line.split("|") for line in self.cluster.jobs("%i|%T|%Z|%k")]
        return [
            job
            for job, state, folder, comment in lines
            if Path(folder) == self.bench.folder and f"rule_{rule}" in comment and (not states or state in states)
        ]

    def report(self) -> str:
        """Return what a person would look at after a failure."""
        logs = sorted(self.bench.folder.glob("results/**/*.log"))
        texts = [f"== {path}\n{path.read_text(errors='replace')[-3000:]}" for path in logs]
        return "\n".join([self.output.read_text()[-6000:], *self.cluster.jobs(), *texts])


def interrupt(process: subprocess.Popen[str], how: signal.Signals = signal.SIGINT) -> None:
    """Send a signal to Snakemake itself, as Ctrl-C in its terminal does."""
    os.kill(process.pid, how)
