"""How a run ends, and where that is recorded: ``state.json``, ``log.txt``, and one line for the person."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

import atomic_file
from errors import RunFailed, SuiteError, WriteError
from experiments.folder.claim import Claim
from experiments.folder.run_folder import RunFolder
from experiments.interrupts import Interrupted
from experiments.training.devices import Group, LostContact
from run_format import FAILED, INTERRUPTED, REFUSED

log = logging.getLogger("experiments")


class LoaderKilled(RunFailed):
    """A process that read images was killed from outside, e.g. for want of memory."""


RESUMED = (LostContact, LoaderKilled)  # ends for which the run is not to blame: the next start goes on with it


class LogFile(logging.FileHandler):
    """``log.txt``. A full disk loses lines of it; the run goes on."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


@contextmanager
def logged(folder: RunFolder, group: Group) -> Iterator[None]:
    """Logs to ``log.txt``; processes other than the first log their warnings to files of their own."""
    handler = LogFile(folder.log if group.first else folder.path / f"log.rank-{group.rank}.txt", delay=not group.first)
    handler.setLevel(logging.DEBUG if group.first else logging.WARNING)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        log.removeHandler(handler)
        with suppress(OSError):
            handler.close()


@contextmanager
def noted(folder: RunFolder, group: Group, claims: list[Claim]) -> Iterator[None]:
    """Records every ending in ``state.json`` and ``log.txt``. A traceback goes to the log, one line to the person."""

    def note(state: str, cause: str) -> None:
        if group.first and not any(claim.lost for claim in claims):
            with suppress(OSError, WriteError):
                folder.set_state(state, cause=cause)

    try:
        yield
    except Interrupted as error:
        log.info("%s: interrupted by %s", folder.id, error)
        note(INTERRUPTED, str(error))
        raise
    except KeyboardInterrupt:
        note(INTERRUPTED, "SIGINT")
        raise
    except Exception as error:
        refined = one_line(error, folder, group)
        cause = str(refined)
        log.error(cause) if not group.first else log.debug("%s\n%s", cause, traceback.format_exc())
        # a refused run has changed nothing, and the next start tries it again
        ending = REFUSED if refined.exit_code == 2 else FAILED
        note(INTERRUPTED if isinstance(refined, RESUMED) else ending, cause)
        if not isinstance(refined, RESUMED):
            group.report_failure(cause)
        raise refined from error


def one_line(error: Exception, folder: RunFolder, group: Group) -> SuiteError:
    """The error as one line for a person."""
    if isinstance(error, SuiteError):
        return error
    if group.lost_contact(error):
        cause = group.reported_failure()
        return RunFailed(cause) if cause else LostContact(f"lost contact with another of the {group.size} processes")
    if isinstance(error, OSError) and error.filename is None and error.strerror:
        return RunFailed(f"{folder.path}: {atomic_file.reason(error)}")
    if re.match(r"DataLoader worker \(pid.*(by signal: (Killed|Terminated)|exited unexpectedly)", str(error)):
        return LoaderKilled(
            "a process that reads images was killed, or could not pass a batch on: where memory or /dev/shm is short, "
            "set data.workers lower"
        )
    if isinstance(error, torch.OutOfMemoryError):
        return RunFailed("out of GPU memory: set machine.batch_per_device, or use a smaller model")
    return RunFailed(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
