"""How a run ends, and where that is said: ``state.json``, ``log.txt``, and to the person in one line."""

from __future__ import annotations

import logging
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

log = logging.getLogger("experiments")


class LogFile(logging.FileHandler):
    """``log.txt``; a disk that is full costs lines of it, not the run."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


@contextmanager
def logged(folder: RunFolder, group: Group) -> Iterator[None]:
    """Everything to ``log.txt``, warnings of other processes than the first to a file of their own."""
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
    """Leaves every ending in ``state.json`` and ``log.txt``; a traceback goes to the log, one line to the person."""

    def note(state: str, cause: str) -> None:
        if group.first and not any(claim.lost for claim in claims):
            with suppress(OSError, WriteError):
                folder.set_state(state, cause=cause)

    try:
        yield
    except Interrupted as error:
        log.info("%s: interrupted by %s", folder.id, error)
        note("interrupted", str(error))
        raise
    except KeyboardInterrupt:
        note("interrupted", "SIGINT")
        raise
    except Exception as error:
        refined = one_line(error, folder, group)
        cause = str(refined)
        log.error(cause) if not group.first else log.debug("%s\n%s", cause, traceback.format_exc())
        # what was refused has changed nothing, and is tried again by the next start
        refused = "refused" if refined.exit_code == 2 else "failed"
        note("interrupted" if isinstance(refined, LostContact) else refused, cause)
        if not isinstance(refined, LostContact):
            group.leave_word(cause)
        raise refined from error


def one_line(error: Exception, folder: RunFolder, group: Group) -> SuiteError:
    """The error as one line for a person."""
    if isinstance(error, SuiteError):
        return error
    if group.lost_contact(error):
        word = group.word_left()
        return RunFailed(word) if word else LostContact(f"lost contact with another of the {group.size} processes")
    if isinstance(error, OSError) and error.filename is None and error.strerror:
        return RunFailed(f"{folder.path}: {atomic_file.reason(error)}")
    if isinstance(error, torch.OutOfMemoryError):
        return RunFailed("out of GPU memory: set machine.batch_per_device, or use a smaller model")
    return RunFailed(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
