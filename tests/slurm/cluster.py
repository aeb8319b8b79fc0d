"""A private Slurm on this machine: real daemons, virtual nodes with fake GPUs, everything below one folder.

    python -m tests.slurm.cluster up       print the variables that clients need (for `eval`)
    python -m tests.slurm.cluster down     stop it; exit 1 and name what outlived its job

Neither root, nor systemd, nor cgroups are needed. Debian packages: see PACKAGES. Only what the folder's own pid files
name is ever stopped, and only clients with the folder's own configuration are called: never another cluster.
"""

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGES = "slurmctld slurmd slurmdbd slurm-client munge slurm-wlm-basic-plugins mariadb-server"
NODES = ("h1", "h2", "a1", "a2")
ACCOUNT = "atelier"
GPUS = 8
# In the order of stopping: with slurmd first, slurmctld waits for it; munge last, since all speak through it.
DAEMONS = ("slurmctld", *(f"slurmd.{node}" for node in NODES), "slurmdbd", "mariadbd", "munged")


class ClusterError(Exception):
    """The private Slurm did not do what it should; the message names the log to read."""


def missing_programs() -> list[str]:
    """Return the programs of PACKAGES that this machine lacks."""
    search = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    names = ("slurmctld", "slurmd", "slurmdbd", "sbatch", "munged", "mariadbd", "mariadb-install-db")
    return [name for name in names if not shutil.which(name, path=search)]


@dataclass(frozen=True)
class Cluster:
    """One private Slurm, known by its folder. Keep the path short: Unix sockets allow about 100 characters."""

    root: Path

    @property
    def conf(self) -> Path:
        """slurm.conf, by which every client finds this cluster and no other."""
        return self.root / "etc" / "slurm.conf"

    @property
    def name(self) -> str:
        """The cluster's name, which every process of its jobs carries as SLURM_CLUSTER_NAME."""
        return f"atelier{zlib.crc32(os.fsencode(self.root))}"

    def environment(self) -> dict[str, str]:
        """Return the variables for clients. The folder's `srun` comes first: see `_write_srun`."""
        return {"SLURM_CONF": str(self.conf), "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}:/usr/sbin"}

    def call(self, *command: str, timeout: float = 20, check: bool = True) -> str:
        """Run a Slurm client; a dead slurmctld makes clients wait for minutes, hence the time limit."""
        done = subprocess.run(
            command,
            env={**os.environ, **self.environment()},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            raise ClusterError(f"{shlex.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def up(self) -> None:
        """Start the daemons and wait until every node is idle."""
        if lacking := missing_programs():
            raise ClusterError(f"this machine lacks {', '.join(lacking)}; on Debian: apt-get install {PACKAGES}")
        if self.conf.exists():
            raise ClusterError(f"{self.root} exists: stop that Slurm first (make slurm-down)")
        for name in ("etc", "run", "log", "state", "dev", "bin", "sql", *(f"spool/{node}" for node in NODES)):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        (self.root / "etc").chmod(0o700)
        self._write_files(*_free_ports(4 + len(NODES)))
        self._start_munge()
        self._start_accounting()
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        self._wait(lambda: self._states() == {"idle"}, 60, "nodes to become idle")

    def down(self) -> list[str]:
        """Cancel all jobs, stop all daemons, remove the folder; return what outlived its job (already killed)."""
        if not self.conf.exists():
            raise ClusterError(f"no private Slurm below {self.root}")
        with contextlib.suppress(ClusterError, subprocess.TimeoutExpired):
            self.call("scancel", "--user", str(os.getuid()), timeout=5)
            self._wait(lambda: not self.call("squeue", "-h", timeout=5), 20, "jobs to end")
        for daemon in DAEMONS:
            self.stop(daemon)
        left = [f"{pid}: {text}" for pid, text in self.processes()]
        for pid, _ in self.processes():
            _kill(pid, signal.SIGKILL)
        shutil.rmtree(self.root)
        return left

    def start_controller(self) -> None:
        """Start slurmctld."""
        self._daemon("slurmctld")

    def start_node(self, node: str) -> None:
        """Start the slurmd of one virtual node."""
        self._daemon("slurmd", "-N", node)

    def stop(self, daemon: str, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop one of DAEMONS: politely, and after 15 s by force (a slurmd that registers itself ignores SIGTERM)."""
        path = self.root / "run" / f"{daemon}.pid"
        try:
            pid = int(path.read_text())
            if Path(f"/proc/{pid}/comm").read_text().strip() != daemon.split(".")[0]:
                return
        except (OSError, ValueError):
            return
        _kill(pid, how)
        stop = time.monotonic() + 15
        while _alive(pid) and time.monotonic() < stop:
            time.sleep(0.05)
        _kill(pid, signal.SIGKILL)

    def processes(self) -> Iterator[tuple[int, str]]:
        """Yield pid and command line of each living process of this cluster's jobs."""
        marks = {f"SLURM_CLUSTER_NAME={self.name}".encode()}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                if marks & set((entry / "environ").read_bytes().split(b"\0")):
                    text = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    yield int(entry.name), text[:150].strip()

    def step_daemons(self, job: str) -> list[int]:
        """Return the pids of the slurmstepds of a job; they carry no variables, but its id in their titles."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                title = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
                if (
                    title.startswith(f"slurmstepd: [{job}.".encode())
                    and (entry / "cwd").readlink() == self.root / "log"
                ):
                    found.append(int(entry.name))
        return found

    def jobs(self, form: str = "%i %T %k") -> list[str]:
        """Return squeue's lines: by default job id, state and comment."""
        return self.call("squeue", "-h", "-t", "all", "-o", form).splitlines()

    def _daemon(self, *command: str, **more: str) -> None:
        environment = {**os.environ, **self.environment(), **more}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise ClusterError(f"{shlex.join(command)}: {done.stderr.strip()}; logs in {self.root / 'log'}")

    def _states(self) -> set[str]:
        with contextlib.suppress(ClusterError, subprocess.TimeoutExpired):
            return set(self.call("sinfo", "-hNo", "%T", timeout=5).split())
        return set()

    def _wait(self, ready: Callable[[], bool], seconds: float, what: str) -> None:
        stop = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > stop:
                raise ClusterError(f"waited {seconds} s for {what}; logs in {self.root / 'log'}")
            time.sleep(0.2)

    def _start_munge(self) -> None:
        run, key = self.root / "run", self.root / "etc" / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        self._daemon(
            "munged",
            "--force",
            f"--key-file={key}",
            f"--socket={run / 'munge.socket'}",
            f"--pid-file={run / 'munged.pid'}",
            f"--log-file={self.root / 'log' / 'munged.log'}",
            f"--seed-file={run / 'munged.seed'}",
        )

    def _start_accounting(self) -> None:
        """Start MariaDB and slurmdbd: without them Slurm accepts any account and keeps no times."""
        user, sql, socket_path = _user(), self.root / "sql", self.root / "run" / "sql.socket"
        log = (self.root / "log" / "mariadb.log").open("w")
        install = ["mariadb-install-db", "--no-defaults", f"--user={user}", f"--datadir={sql}", "--skip-test-db"]
        subprocess.run(
            [*install, "--auth-root-authentication-method=normal"], stdout=log, stderr=log, check=True, timeout=120
        )
        options = {
            "user": user,
            "datadir": sql,
            "socket": socket_path,
            "pid-file": self.root / "run" / "mariadbd.pid",
            "innodb-buffer-pool-size": "64M",
            "innodb-log-file-size": "32M",
            "innodb-flush-log-at-trx-commit": 0,
        }
        # Only by socket: no port, so no other program can meet it.
        server = ["mariadbd", "--no-defaults", "--skip-networking", *(f"--{k}={v}" for k, v in options.items())]
        subprocess.Popen(
            server, stdout=log, stderr=log, start_new_session=True, env={**os.environ, **self.environment()}
        )
        client = ["mariadb", "--no-defaults", "-u", "root", "-S", str(socket_path), "-e"]
        self._wait(lambda: subprocess.run([*client, "select 1"], capture_output=True).returncode == 0, 60, "MariaDB")
        grant = "grant all on slurm_acct_db.* to slurm@localhost identified by 'x'"
        subprocess.run([*client, f"create database slurm_acct_db; {grant}"], check=True)
        self._daemon("slurmdbd", MYSQL_UNIX_PORT=str(socket_path))  # the client library's default socket
        self._wait(lambda: self._accounts("list", "cluster", "-n") is not None, 60, "slurmdbd")
        for words in (["cluster", self.name], ["account", ACCOUNT], ["user", user, f"Account={ACCOUNT}"]):
            self.call("sacctmgr", "-i", "add", *words)

    def _accounts(self, *args: str) -> str | None:
        with contextlib.suppress(ClusterError, subprocess.TimeoutExpired):
            return self.call("sacctmgr", *args, timeout=5)
        return None

    def _write_files(self, *ports: int) -> None:
        for i in range(GPUS):
            # Slurm counts device files only. A link to /dev/null is one; jobs see CUDA_VISIBLE_DEVICES=0..7.
            (self.root / "dev" / f"nvidia{i}").symlink_to("/dev/null")
        self.conf.write_text(_slurm_conf(self, ports))
        gpus = f"Flags=nvidia_gpu_env File={self.root}/dev/nvidia[0-{GPUS - 1}]\n"
        gres = f"NodeName=h[1-2] Name=gpu Type=h100 {gpus}NodeName=a[1-2] Name=gpu Type=a40 {gpus}"
        (self.root / "etc" / "gres.conf").write_text(gres)
        dbd = self.root / "etc" / "slurmdbd.conf"
        dbd.write_text(_slurmdbd_conf(self, ports[2]))
        dbd.chmod(0o600)
        self._write_srun()

    def _write_srun(self) -> None:
        """Put an `srun` first in PATH that knows the configuration: Snakemake's job step drops SLURM_CONF."""
        for name in ("srun", "scontrol", "squeue"):
            program = shutil.which(name)
            shim = self.root / "bin" / name
            shim.write_text(f'#!/bin/sh\nSLURM_CONF={shlex.quote(str(self.conf))} exec {program} "$@"\n')
            shim.chmod(0o755)


def _slurm_conf(cluster: Cluster, ports: tuple[int, ...]) -> str:
    root, host = cluster.root, socket.gethostname().split(".")[0]
    nodes = "\n".join(
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=64 "
        f"RealMemory={1_000_000 if node[0] == 'h' else 500_000} Gres=gpu:{'h100' if node[0] == 'h' else 'a40'}:{GPUS}"
        for node, port in zip(NODES, ports[4:], strict=True)
    )
    settings = {
        "ClusterName": cluster.name,
        "SlurmctldHost": f"{host}(127.0.0.1)",
        "SlurmctldPort": ports[0],
        "SlurmUser": _user(),
        "SlurmdUser": _user(),
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={root}/run/munge.socket",
        "StateSaveLocation": f"{root}/state",
        "SlurmdSpoolDir": f"{root}/spool/%n",
        "SlurmctldPidFile": f"{root}/run/slurmctld.pid",
        "SlurmdPidFile": f"{root}/run/slurmd.%n.pid",
        "SlurmctldLogFile": f"{root}/log/slurmctld.log",
        "SlurmdLogFile": f"{root}/log/slurmd.%n.log",
        # No cgroups: processes are found by their parents.
        "ProctrackType": "proctrack/linuxproc",
        "JobAcctGatherType": "jobacct_gather/linux",
        "JobAcctGatherFrequency": "task=2",
        "MpiDefault": "none",
        "MailProg": "/bin/true",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core_Memory",
        "SchedulerParameters": "bf_interval=1,sched_interval=2,default_queue_depth=1000",
        # Nodes may claim more processors and memory than this machine has.
        "SlurmdParameters": "config_overrides",
        "ReturnToService": 2,
        # Status by squeue needs finished jobs to stay listed: at least 300 s (profiles/README.md).
        "MinJobAge": 600,
        "KillWait": 5,
        "SlurmdTimeout": 15,
        "GresTypes": "gpu",
        "PreemptType": "preempt/partition_prio",
        "PreemptMode": "REQUEUE",
        "JobRequeue": 1,
        "AccountingStorageType": "accounting_storage/slurmdbd",
        "AccountingStorageHost": "127.0.0.1",
        "AccountingStoragePort": ports[2],
        "AccountingStoragePass": f"{root}/run/munge.socket",
        "AccountingStorageEnforce": "associations",
        "AccountingStorageTRES": "gres/gpu",
    }
    partitions = (
        "PartitionName=DEFAULT MaxTime=24:00:00 DefaultTime=10 State=UP\n"
        "PartitionName=h100 Nodes=h1,h2 PriorityTier=10\n"
        "PartitionName=h100-high Nodes=h1,h2 PriorityTier=100 PreemptMode=OFF\n"
        "PartitionName=a40 Nodes=a1,a2 PriorityTier=10\n"
        "PartitionName=cpu Nodes=ALL Default=YES PriorityTier=10\n"
    )
    return "".join(f"{key}={value}\n" for key, value in settings.items()) + nodes + "\n" + partitions


def _slurmdbd_conf(cluster: Cluster, port: int) -> str:
    root = cluster.root
    settings = {
        "DbdHost": "localhost",
        "DbdAddr": "127.0.0.1",
        "DbdPort": port,
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={root}/run/munge.socket",
        "SlurmUser": _user(),
        "LogFile": f"{root}/log/slurmdbd.log",
        "PidFile": f"{root}/run/slurmdbd.pid",
        "StorageType": "accounting_storage/mysql",
        "StorageHost": "localhost",
        "StorageUser": "slurm",
        "StoragePass": "x",
        "StorageLoc": "slurm_acct_db",
    }
    return "".join(f"{key}={value}\n" for key, value in settings.items())


def _free_ports(count: int) -> list[int]:
    """Return ports that are free now; all are held until the last one is known, so that they differ."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _alive(pid: int) -> bool:
    """Tell whether a process runs; one that ended and waits for its parent doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _kill(pid: int, how: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, how)


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def default_root() -> Path:
    """Return the folder of this user's private Slurm."""
    return Path(tempfile.gettempdir()) / f"atelier-slurm-{os.getuid()}"


def session_root() -> Path:
    """Return the folder of this process's private Slurm, so that two sessions on one machine don't meet."""
    return default_root().with_name(f"{default_root().name}-{os.getpid()}")


def left_behind() -> list[Cluster]:
    """Return the clusters of sessions of this user that ended without stopping theirs."""
    pattern = f"{default_root().name}-*"
    found = [path for path in default_root().parent.glob(pattern) if not _alive(int(path.name.rpartition("-")[2]))]
    return [Cluster(path) for path in found if Cluster(path).conf.exists()]


def main() -> None:
    """Run one command; see the module's text."""
    cluster = Cluster(default_root())
    try:
        if sys.argv[1:] == ["up"]:
            cluster.up()
            path = shlex.quote(str(cluster.root / "bin"))
            print(f"export SLURM_CONF={shlex.quote(str(cluster.conf))} PATH={path}:$PATH")
        elif sys.argv[1:] == ["down"]:
            if left := cluster.down():
                sys.exit("outlived their jobs, killed now:\n" + "\n".join(left))
            print("stopped; nothing left")
        else:
            sys.exit("usage: python -m tests.slurm.cluster up | down")
    except ClusterError as error:
        sys.exit(f"slurm: {error}")


if __name__ == "__main__":
    main()
