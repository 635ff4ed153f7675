"""A real Slurm on this machine, for tests: several virtual nodes, fake GPUs, preemption and accounting.

By hand, as root:  eval "$(python -m tests.slurm.cluster up DIR)"  and  python -m tests.slurm.cluster down DIR
"""

from __future__ import annotations

import argparse
import fcntl
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

NEEDED = ("munged", "slurmctld", "slurmd", "slurmdbd", "mariadbd", "sbatch", "srun", "sacct")
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
HOSTS = Path("/etc/hosts")
MARK = "SLURM_TEST_CLUSTER"  # in the environment of every daemon: the folder of its cluster

TEMPLATES = Path(__file__).parent
NODE = (
    "NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory=500000 Gres=gpu:{gpus}"
)


class ClusterError(RuntimeError):
    """The cluster does not work as requested; the message names the log to read."""


def why_not() -> str | None:
    """The reason why a cluster cannot be started on this machine, if any."""
    missing = [command for command in NEEDED if not shutil.which(command, path=SEARCH_PATH)]
    if missing:
        return f"{', '.join(missing)} not installed"
    if os.geteuid() != 0:
        return "starting a Slurm needs root"
    return None


class Cluster:
    """Everything is in ``folder`` except one line in /etc/hosts; every daemon listens on 127.0.0.1 only.

    Nodes are called node1, node2...; nothing is pinned or limited. Partitions: ``low`` (the default) and ``short``
    (at most five minutes) are preempted and requeued by ``high``.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        nodes: int = 2,
        cpus: int = 4,
        gpus: int = 2,
        max_array_size: int = 1001,
        grace: int = 10,
    ):
        self.folder = Path(folder).resolve()
        # Slurm cannot quote a path; the path of a socket ends at 107 characters, and ours has up to 40 below this one
        if not re.fullmatch(r"[\w/.-]{1,67}", str(self.folder), re.ASCII):
            raise ClusterError(f"{self.folder}: a cluster needs a path of at most 67 plain characters")
        self.nodes = [f"node{number + 1}" for number in range(nodes)]
        self.cpus, self.gpus, self.max_array_size, self.grace = cpus, gpus, max_array_size, grace
        self.environment = {"SLURM_CONF": str(self.folder / "slurm.conf")}
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Cluster:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Starts the daemons that do not run."""
        if reason := why_not():
            raise ClusterError(reason)
        try:
            if not self._find("slurmctld", "slurmd"):
                self._configure()
            self._start_munge()
            self._start_database()
            self.start_controller()
            for node in self.nodes:
                if not self._find("slurmd", arguments=("-N", node)):
                    self._spawn("slurmd", "-D", "-N", node)
            self._wait(self._nodes_ready, "slurmctld")
        except BaseException:
            self.stop()
            raise

    def start_controller(self) -> None:
        """Starts slurmctld, which takes over the jobs of the previous one."""
        if not self._find("slurmctld"):
            self._spawn("slurmctld", "-D")
        self._wait(lambda: self._quiet("scontrol", "ping") is not None, "slurmctld")

    def kill_controller(self, saved: bool = True) -> None:
        """``kill -9`` of slurmctld: no command of Slurm is answered any more, and jobs continue.

        saved: wait for slurmctld to save its state, which it does every five seconds after a change. A job that is not
        in the saved state is forgotten, and is killed when a controller is back.
        """
        asked, written = time.time(), self.folder / "state" / "job_state"
        while saved and time.time() < asked + 6 and not (written.exists() and written.stat().st_mtime > asked):
            time.sleep(0.05)
        self._end(self._find("slurmctld", "slurmscriptd"), signal.SIGKILL)

    def stop(self) -> None:
        """Ends all jobs, then all daemons, the last started first. Logs and accounting stay in the folder."""
        if self._find("slurmctld"):
            with suppress(ClusterError):
                self.clear()
        for name in ("slurmd", "slurmctld", "slurmdbd", "mariadbd", "munged"):
            self._end(self._find(name), signal.SIGTERM)
        # jobs that no controller could cancel, and processes that depend on them
        self._end(self._marked(f"{MARK}={self.folder}", f"SLURM_CLUSTER_NAME={self._name}"), signal.SIGKILL)
        for child in self._children.values():
            child.wait()
        self._children.clear()
        for name in ("state", "spool", "run"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        self._name_hosts(present=False)

    def clear(self) -> None:
        """Ends all jobs at once, without the grace time of Slurm, and makes all nodes available again."""
        self.start_controller()
        if jobs := self.run("squeue", "--noheader", "--format=%A").split():
            self._quiet("scancel", *jobs)  # fails for jobs that have ended meanwhile
        self._end(self._marked(f"SLURM_CLUSTER_NAME={self._name}"), signal.SIGKILL)
        self._wait(lambda: not self.run("squeue", "--noheader") and self._nodes_ready(), "slurmctld")

    def run(self, *command: str | os.PathLike[str], timeout: float = 60) -> str:
        """Standard output of a command of Slurm; raises ClusterError with its complaint."""
        done = subprocess.run(command, env=self._clean_environment(), text=True, capture_output=True, timeout=timeout)
        if done.returncode:
            raise ClusterError(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.returncode}")
        return done.stdout.strip()

    # --- configuration

    def _configure(self) -> None:
        for name in ("log", "run", "state", "spool", "munge", "gpus", *(f"spool/{node}" for node in self.nodes)):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for folder in (self.folder, self.folder / "munge"):
            folder.chmod(0o711)  # munged insists that everyone can reach its socket
        controller_port, database_port, *node_ports = free_ports(2 + len(self.nodes))
        values = {
            "name": self._name,
            "folder": self.folder,
            "host": socket.gethostname().split(".")[0],
            "controller_port": controller_port,
            "database_port": database_port,
            "max_array_size": self.max_array_size,
            "grace": self.grace,
            "first_job": random.randrange(1000, 60_000_000),  # so that no id appears in old folders of jobs
            "cpus": self.cpus,
            "gpus": self.gpus,
        }
        lines = [NODE.format(node=node, port=port, **values) for node, port in zip(self.nodes, node_ports)]
        self._conf.write_text((TEMPLATES / "slurm.conf").read_text().format(**values) + "\n".join(lines) + "\n")
        database = self.folder / "slurmdbd.conf"
        database.touch(mode=0o600)
        database.write_text((TEMPLATES / "slurmdbd.conf").read_text().format(**values))
        devices = [self.folder / "gpus" / f"gpu{number}" for number in range(self.gpus)]
        for device in devices:  # Slurm needs a device, no matter which
            device.unlink(missing_ok=True)
            device.symlink_to("/dev/null")
        (self.folder / "gres.conf").write_text("".join(f"Name=gpu File={device}\n" for device in devices))
        if slurm_version() >= (24, 5):  # since then, slurmd looks for cgroups by default
            (self.folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
        self._name_hosts(present=True)

    @property
    def _conf(self) -> Path:
        return Path(self.environment["SLURM_CONF"])

    @property
    def _name(self) -> str:
        return f"test{zlib.crc32(str(self.folder).encode()):08x}"  # short: names of MariaDB's tables begin with it

    def _name_hosts(self, present: bool) -> None:
        """Node names must resolve, and the machine's own name to loopback, where ``srun`` is called back."""
        tag = f"# test cluster {self.folder}"
        with HOSTS.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            lines = [line for line in file.read().splitlines() if not line.endswith(tag)]
            if present:
                lines.insert(0, f"127.0.0.1 {' '.join(self.nodes)} {socket.gethostname().split('.')[0]} {tag}")
            file.seek(0)  # written in place: in a container this file cannot be replaced
            file.write("\n".join(lines) + "\n")
            file.truncate()

    # --- daemons

    def _start_munge(self) -> None:
        munge = self.folder / "munge"
        key = munge / "key"
        if not key.exists():
            key.touch(mode=0o600)
            key.write_bytes(os.urandom(128))
        if not self._find("munged"):
            (munge / "socket").unlink(missing_ok=True)
            files = {"key": key, "socket": munge / "socket", "seed": munge / "seed", "pid": munge / "pid"}
            options = [f"--{name}{'' if name == 'socket' else '-file'}={path}" for name, path in files.items()]
            self._spawn("munged", "--foreground", *options)
            self._wait((munge / "socket").exists, "munged")

    def _start_database(self) -> None:
        """slurmdbd on a MariaDB without users or network, behind a socket in a private folder."""
        data, socket_path = self.folder / "db", self.folder / "db" / "socket"
        server = ["mariadbd", "--no-defaults", "--user=root", "--innodb-flush-log-at-trx-commit=0"]
        server += ["--innodb-log-file-size=16M", "--skip-log-bin", "--loose-innodb-use-native-aio=0"]
        if not data.exists():
            unfinished = self.folder / "db.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(mode=0o700)
            tables = next(Path("/usr/share").glob("m*/mysql_system_tables.sql")).read_text()
            with self._log("bootstrap").open("wb") as log:
                subprocess.run(
                    [*server, f"--datadir={unfinished}", "--bootstrap"],
                    input=b"CREATE DATABASE mysql;\nUSE mysql;\n" + tables.encode(),
                    env=self._daemon_environment(),
                    stdout=log,
                    stderr=log,
                    check=True,
                )
            unfinished.rename(data)
        if not self._find("mariadbd"):
            socket_path.unlink(missing_ok=True)
            options = ["--skip-networking", "--skip-grant-tables", f"--socket={socket_path}"]
            self._spawn(*server, f"--datadir={data}", f"--pid-file={data}/pid", *options)
            self._wait(socket_path.exists, "mariadbd")
        if not self._find("slurmdbd"):
            self._spawn("slurmdbd", "-D", MYSQL_UNIX_PORT=str(socket_path))
            port = int(re.findall(r"DbdPort=(\d+)", (self.folder / "slurmdbd.conf").read_text())[0])
            self._wait(lambda: listens(port), "slurmdbd")

    def _spawn(self, *command: str, **variables: str) -> None:
        """In the foreground of a session of its own, so that it can be waited for and outlives this process."""
        name = command[-1] if command[0] == "slurmd" else command[0]
        with self._log(name).open("ab") as log:
            environment = self._daemon_environment() | variables
            self._children[name] = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def _log(self, name: str) -> Path:
        return self.folder / "log" / f"{name}.out"

    def _clean_environment(self) -> dict[str, str]:
        """Without the variables of a job, and without personal defaults of Slurm's commands."""
        others = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("SLURM", "SBATCH_", "SRUN_", "SALLOC_", "SQUEUE_", "SINFO_", "SACCT_"))
        }
        return others | self.environment | {"PATH": SEARCH_PATH}

    def _daemon_environment(self) -> dict[str, str]:
        return self._clean_environment() | {MARK: str(self.folder)}

    # --- processes

    def _find(self, *names: str, arguments: tuple[str, ...] = ()) -> list[int]:
        """Our daemons of these names that were given these arguments."""
        pids = []
        for pid in self._marked(f"{MARK}={self.folder}"):
            with suppress(OSError):
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
                if name in names and set(arguments) <= set(words):
                    pids.append(pid)
        return pids

    def _marked(self, *variables: str) -> list[int]:
        """Processes that were started with one of these settings in their environment."""
        settings = {variable.encode() for variable in variables}
        return [pid for pid, environment in processes() if settings & set(environment)]

    def _end(self, pids: list[int], sign: signal.Signals) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, sign)
        give_up = time.monotonic() + 20
        while any(map(alive, pids)):
            if time.monotonic() > give_up:
                raise ClusterError(f"processes {pids} do not end on {sign.name}")
            time.sleep(0.02)

    def _nodes_ready(self) -> bool:
        states = (self._quiet("sinfo", "--noheader", "--Node", "--partition=low", "--format=%t") or "").split()
        if unfit := [state for state in states if state.startswith(("drain", "drng", "down", "fail"))]:
            for node in self.nodes if unfit else []:
                self._quiet("scontrol", "update", f"NodeName={node}", "State=RESUME")
        return len(states) == len(self.nodes) and set(states) <= {"idle", "mix", "alloc"}

    def _quiet(self, *command: str) -> str | None:
        try:
            return self.run(*command, timeout=10)
        except (ClusterError, subprocess.TimeoutExpired):
            return None

    def _wait(self, condition: Callable[[], bool], daemon: str, seconds: float = 60) -> None:
        give_up = time.monotonic() + seconds
        while not condition():
            ended = daemon in self._children and self._children[daemon].poll() is not None
            if ended or time.monotonic() > give_up:
                happened = "ended" if ended else f"is not ready after {seconds:.0f} s"
                log = self._log(daemon).read_text(errors="replace")[-2000:]
                raise ClusterError(f"{daemon} {happened}; its log in {self.folder}/log ends with\n{log}")
            time.sleep(0.05)


def processes() -> Iterator[tuple[int, list[bytes]]]:
    """Process ids and the environments they were started with; a zombie has none, and is left out."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if environment := (entry / "environ").read_bytes():
                    yield int(entry.name), environment.split(b"\0")


def alive(pid: int) -> bool:
    with suppress(OSError):
        return bool(Path(f"/proc/{pid}/environ").read_bytes())
    return False


def listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def free_ports(count: int) -> list[int]:
    """Ports below those of outgoing connections, drawn at random so that two clusters do not choose the same."""
    ports: list[int] = []
    with ExitStack() as sockets:
        while len(ports) < count:
            candidate = sockets.enter_context(socket.socket())
            with suppress(OSError):
                candidate.bind(("127.0.0.1", random.randrange(10_000, 32_000)))
                ports.append(candidate.getsockname()[1])
    return ports


def slurm_version() -> tuple[int, int]:
    version = subprocess.run(
        ["slurmd", "-V"], env={"PATH": SEARCH_PATH}, text=True, capture_output=True, check=True
    ).stdout
    major, minor = re.findall(r"(\d+)\.(\d+)", version)[0]
    return int(major), int(minor)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.slurm.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="whether a cluster can be started on this machine")
    for name, text in (
        ("up", "start a cluster, and print the variables with which a shell uses it"),
        ("down", "stop it"),
    ):
        commands.add_parser(name, help=text).add_argument("folder", help="folder of all its files; a short path")
    options = parser.parse_args()
    if options.command == "check":
        reason = why_not()
        parser.exit(1 if reason else 0, f"no Slurm: {reason}\n" if reason else None)
    cluster = Cluster(options.folder)
    try:
        if options.command == "down":
            cluster.stop()
            return
        cluster.start()
    except ClusterError as error:
        parser.exit(1, f"{error}\n")
    for name, value in cluster.environment.items():
        print(f"export {name}={value}")


if __name__ == "__main__":
    main()
