"""Claims in a run's folder: one process holds a run, also among machines that share a file system. No torch.

A claim is a numbered file, ``claim-000007``, that names its process; the highest number counts. Its holder touches it
every BEAT_SECONDS, and renames it to ``claim-000007.free`` at the end. A process that sees the highest claim free, or
its holder dead, creates the next number; the file system lets only one of several processes create it.

A claim is removed only after a higher one is held. So a process that acts on an outdated listing of the folder (the
claim that it saw as dead was taken, released and taken again since) either cannot create its number or sees a higher
one beside it, and withdraws. If claims were removed when they are released, such a process would see an empty folder
and win beside the holder.

Ages are taken by the file server's clock; a claim from the future lives if it is seen to be touched. A file system that
stamps files with its clients' clocks needs clocks that agree to EXPIRES_SECONDS - BEAT_SECONDS.
"""

from __future__ import annotations

import errno
import json
import os
import pwd
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import atomic_file
from errors import RunFolderError

BEAT_SECONDS = 10.0
EXPIRES_SECONDS = 60.0
NAME_SECONDS = 1.0  # how long a claim that is still being written is read again, to name its holder
BEATS_WATCHED = 2.5  # how long a claim from the future is watched
POLL_SECONDS = 0.02
MOST_BYTES = 1 << 16  # of a claim that is read; whole ones have a few hundred
_NAME = re.compile(r"claim-(\d+)(\.free)?")


_STILL: set[tuple[Path, float]] = set()  # claims from the future that were watched in vain, and their times


@dataclass(frozen=True)
class Holder:
    """The process that made a claim; ``pid`` is 0 where the claim does not name it."""

    token: str
    machine: dict[str, str | None]
    pid: int
    pid_started: int | None  # distinguishes the process from a later one with the same pid
    job: str | None

    @property
    def here(self) -> bool:
        """Whether ``pid`` means a process to this process, too: the same boot of the same machine."""
        return self.machine == _machine()

    def __str__(self) -> str:
        if not self.pid:
            return "another process"
        return f"process {self.pid} on {self.machine.get('host')}" + (f" (job {self.job})" if self.job else "")


UNKNOWN = Holder("", {}, 0, None, None)


class Claim:
    """A run held by this process. A thread keeps it fresh until ``release``."""

    def __init__(self, folder: Path, number: int, token: str):
        self._folder, self._number, self._token = folder, number, token
        self._path = _path(folder, number)
        self._lost = False
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._keep_fresh, name="claim", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> bool:
        """Whether another process was last seen to have taken the run over; ``check`` looks again."""
        return self._lost

    def check(self) -> None:
        """To be called before the folder is written. Raises RunFolderError once another process holds the run.

        That happens to a process that was stopped (SIGSTOP, a suspended machine) until its claim expired.
        """
        self._look()
        if self._lost:
            successor = None
            with suppress(OSError):
                successor = self._successor()
            fate = f"was taken over by {successor}" if successor else "lost its claim, whose file is gone"
            raise RunFolderError(f"{self._folder.name} {fate}; process {os.getpid()} stops")

    def release(self) -> None:
        """Frees the run, if this process still holds it."""
        self._released.set()
        self._thread.join()
        self._look()
        if not self._lost:
            with suppress(OSError):  # the end of this process, or of its beats, frees the run then
                self._path.rename(f"{self._path}.free")

    def _keep_fresh(self) -> None:
        while not self._released.wait(BEAT_SECONDS):
            self._look()
            if self._lost:
                return
            with suppress(OSError):  # the next beat asks a server that does not answer again
                os.utime(self._path)

    def _look(self) -> None:
        with suppress(OSError):  # a claim that cannot be read now is not lost
            content = _read(self._path)
            ours = content is not None and content[0].token in (self._token, UNKNOWN.token)
            if not ours or self._successor() is not None:
                self._lost = True

    def _successor(self) -> Holder | None:
        """The holder of a higher claim, which ends this one."""
        top = _highest(self._folder)
        if top is None or top.number <= self._number:
            return None
        content = _read(top.path)
        return content[0] if content else UNKNOWN


def take(folder: Path) -> Claim:
    """Claims the run of a folder for this process.

    Raises RunFolderError that names the process which holds it, or where the folder cannot be written.
    """
    ours = Holder(secrets.token_hex(8), _machine(), os.getpid(), _started(os.getpid()), _job())
    deadline = time.monotonic() + NAME_SECONDS
    with refusing(folder):
        while True:  # repeats only where another process acts at the same time
            now = _server_time(folder)
            top = _highest(folder)
            content = _read(top.path) if top and not top.free else None
            if top and content and _lives(top.path, *content, now):
                if content[0] is not UNKNOWN or time.monotonic() > deadline:
                    raise held_error(folder, content[0])
            elif content or top is None or top.free:  # a claim that vanished since it was listed: list again
                number = top.number + 1 if top else 1
                if _create(folder, number, ours):
                    break
            time.sleep(POLL_SECONDS)
    with suppress(OSError):  # a lower claim does not count, removed or not
        for entry in _entries(folder):
            if entry.number < number:
                entry.path.unlink(missing_ok=True)
    return Claim(folder, number, ours.token)


def held_error(folder: Path, holder: Holder) -> RunFolderError:
    return RunFolderError(f"{folder.name} is being run by {holder}")


def holder_of(folder: Path) -> Holder | None:
    """The live process that holds the run; UNKNOWN where the folder does not show whether there is one.

    Writes nothing, so ages are taken by this machine's clock.
    """
    try:
        top = _highest(folder)
        content = _read(top.path) if top and not top.free else None
    except FileNotFoundError:
        return None
    except OSError:
        return UNKNOWN
    return content[0] if top and content and _lives(top.path, *content, time.time()) else None


class _Entry(NamedTuple):
    """Sorted by precedence: beside a ``.free`` file, a claim of the same number comes from an outdated listing."""

    number: int
    free: bool
    path: Path


def _path(folder: Path, number: int) -> Path:
    return folder / f"claim-{number:06d}"


def _entries(folder: Path) -> list[_Entry]:
    matches = [(path, _NAME.fullmatch(path.name)) for path in folder.iterdir()]
    return [_Entry(int(match[1]), match[2] is not None, path) for path, match in matches if match]


def _highest(folder: Path) -> _Entry | None:
    return max(_entries(folder), default=None)


def _create(folder: Path, number: int, ours: Holder) -> bool:
    """Whether the claim of that number could be made and is the highest; otherwise it is removed again."""
    path = _path(folder, number)
    try:
        file = path.open("xb")
    except FileExistsError:
        return False
    won = False
    try:
        with file:
            file.write(json.dumps(asdict(ours)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())  # a full disk may show only here
        won = _highest(folder) == _Entry(number, False, path)
    finally:
        if not won:
            with suppress(OSError):
                path.unlink()
    return won


def _read(path: Path) -> tuple[Holder, float] | None:
    """(holder, time of its last beat) of a claim; None where the file no longer exists.

    The file is opened, because that makes an NFS client ask its server where ``stat`` may answer from a cache.
    """
    try:
        # a named pipe would block without the flag, and then reads as empty
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            content, beat = file.read(MOST_BYTES), os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return None
    except OSError:  # e.g. a claim that only its owner may read
        return UNKNOWN, path.stat().st_mtime
    return _parse(content), beat


def _parse(content: bytes) -> Holder:
    """UNKNOWN where the content is not a claim, or not yet complete."""
    try:
        holder = Holder(**json.loads(content))
    except (ValueError, TypeError, RecursionError):
        return UNKNOWN
    typed = (
        isinstance(holder.token, str)
        and isinstance(holder.machine, dict)
        and type(holder.pid) is int  # True is an int, and a search for "1" in a range visits all its numbers
        and isinstance(holder.pid_started, int | None)
        and isinstance(holder.job, str | None)
    )
    return holder if typed and holder.token and 0 < holder.pid < 2**31 else UNKNOWN


def _lives(path: Path, holder: Holder, beat: float, now: float) -> bool:
    if holder.machine == _machine():
        return _process_lives(holder.pid, holder.pid_started)
    if beat - now > EXPIRES_SECONDS:
        return _beats(path, beat)
    return now - beat <= EXPIRES_SECONDS


def _beats(path: Path, beat: float) -> bool:
    """Whether a claim is seen to be touched. One from the future, stamped by a wrong clock, has no age that tells."""
    if (path, beat) in _STILL:
        return False
    deadline = time.monotonic() + BEATS_WATCHED * BEAT_SECONDS
    while time.monotonic() < deadline:
        time.sleep(BEAT_SECONDS / 20)
        with suppress(OSError):
            if path.stat().st_mtime != beat:
                return True
    _STILL.add((path, beat))
    return False


def _process_lives(pid: int, started: int | None) -> bool:
    stat = _stat(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it exists and belongs to another user
    if stat is None:
        return True  # /proc is missing, or hides other users' processes
    ended, since = stat
    return not ended and started in (None, since)


def _started(pid: int) -> int | None:
    stat = _stat(pid)
    return stat[1] if stat else None


def _stat(pid: int) -> tuple[bool, int] | None:
    """(whether it has ended and waits for its parent, start in ticks since boot); None where /proc does not say."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        fields = text[text.rindex(")") + 1 :].split()  # the name before it may hold spaces and parentheses
        # A killed process whose other threads still run shows the state of its first thread, and has its files open.
        return fields[0] in ("Z", "X") and int(fields[17]) <= 1, int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


def _machine() -> dict[str, str | None]:
    """Identifies where a pid means the same process: one boot of one machine, and within it one container."""
    boot = namespace = None
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with suppress(OSError):
        namespace = str(Path("/proc/self/ns/pid").readlink())
    return {"host": socket.gethostname(), "boot": boot, "pid_namespace": namespace}


def _job() -> str | None:
    """The Slurm job by the number that ``squeue`` and ``scancel`` use, e.g. 45, or 45_3 in an array."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def _server_time(folder: Path) -> float:
    """The time by the clock that stamps claims. Touching the folder also makes an NFS client list it again."""
    os.utime(folder)
    return folder.stat().st_mtime


@contextmanager
def refusing(folder: Path) -> Iterator[None]:
    """Turns an OSError into a RunFolderError of one line, which names the folder's owner where that is the cause."""
    try:
        yield
    except OSError as error:
        cause = atomic_file.reason(error)
        if error.errno in (errno.EACCES, errno.EPERM):
            with suppress(OSError):  # the folder is not even visible
                cause = f"it belongs to {_user(folder.stat().st_uid)} and is not writable for {_user(os.geteuid())}"
        raise RunFolderError(f"cannot write {folder}: {cause}") from None


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
