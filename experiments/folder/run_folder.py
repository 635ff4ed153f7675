"""The files of one run, and the only code that writes them: atomically, and by one process at a time."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import atomic_file
from errors import RunFolderError, UnreadableError, WriteError
from experiments.config import from_dict, read_yaml, scientific, write_yaml
from experiments.folder.claim import Claim, Holder, held_error, holder_of, refusing, take
from experiments.schema import SECTIONS, Config
from results.run_folders.summary_file import broken, other_config, problem
from run_format import CHECKPOINTS, CODE, CONFIG, EXCLUSION, INIT_SHA256, LOG, PROVENANCE, SHA256, STATE, SUMMARY
from untrusted_files import LIST, MAPPING, NUMBER, TEXT, content, exists, keys_and_values, listed

KINDS = {  # of keys in the files of a run folder, which anybody may have edited
    STATE: dict.fromkeys(("state", "cause", "phase", "problem", "host"), TEXT)
    | dict.fromkeys(("step", "steps", "epoch", "epochs", "updated", "images_per_s", "seconds_left", "pid"), NUMBER),
    SUMMARY: {"run": TEXT, "metrics": MAPPING, "finished": TEXT, "wall_s": NUMBER, "devices": NUMBER, SHA256: MAPPING},
    PROVENANCE: dict.fromkeys(("commit", "code_fingerprint", "data_fingerprint", INIT_SHA256), TEXT)
    | {"replays": LIST},
    CODE: {"copy": TEXT, "earlier": LIST, "time": NUMBER},
    EXCLUSION: {"because": TEXT, "earlier": LIST},
}


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run, named by the run's id. Everything that writes into it goes through this class, or holds a
    ``claim`` of it."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @classmethod
    def all_in(cls, runs_dir: Path) -> list[RunFolder]:
        """Every folder that has a config, in the order of their ids, and those that do not show whether they have."""
        return [cls(path) for path in listed(runs_dir) if _may_be_run(path)]

    @property
    def log(self) -> Path:
        return self.path / LOG

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    def freeze(self, config: Config, settings: Collection[str] | None = None) -> None:
        """Creates the folder with its ``config.yaml``, or checks that an existing one has the same identity.

        Settings that decide no numbers, e.g. loader processes, are replaced unless the run runs or is done. settings:
        dotted keys to write, for code that knows no others; None = all. Raises RunFolderError where the folder cannot
        be written or holds another config.
        """
        with refusing(self.path):
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            path, text = self.path / CONFIG, write_yaml(_settings_of(config, settings))
            if path.exists():
                if content(path) == text.encode():
                    return
                self._refuse_other(config)
                if self.finished() or self.holder():
                    return
            try:
                atomic_file.write(path, text)
            except WriteError as error:
                raise error.__cause__ or error from None

    def _refuse_other(self, config: Config) -> None:
        frozen, own = scientific(self.config()), scientific(config)
        for key in sorted((frozen.keys() | own.keys()) - {"init"}):
            if frozen.get(key) != own.get(key):
                raise RunFolderError(
                    f"{self.path}: its {CONFIG} says {key}={frozen.get(key)}, not {own.get(key)}; "
                    "it was edited, or another version of this code wrote it"
                )

    def config(self) -> Config:
        return from_dict(read_yaml(self.path / CONFIG))

    def write_json(self, name: str, entries: Mapping[str, Any]) -> None:
        atomic_file.write(self.path / name, json.dumps(entries, indent=1) + "\n")

    def read_json(self, name: str) -> dict[str, Any]:
        """The content of a JSON file of the folder; empty where there is none. Raises UnreadableError."""
        try:
            return keys_and_values(self.path / name, KINDS.get(name))
        except FileNotFoundError:
            return {}

    def set_state(self, state: str, **details: Any) -> None:
        """Writes ``state.json``. Step and steps that are not among ``details`` stay as they were."""
        before: dict[str, Any] = {}
        with suppress(UnreadableError):  # it is replaced
            before = self.read_json(STATE)
        details = {key: before[key] for key in ("step", "steps") if key in before} | details
        writer = {"updated": time.time(), "host": socket.gethostname(), "pid": os.getpid()}
        self.write_json(STATE, {"state": state, **details, **writer})

    def finished(self) -> dict[str, Any]:
        """The summary of a finished run; empty for any other, and for one that ended in metrics that are not finite."""
        summary = self.summary()
        return {} if broken(summary) else summary

    def summary(self) -> dict[str, Any]:
        """The summary of a run that ended, whatever its metrics are; empty for any other.

        Raises UnreadableError where a report would not count it: it is no result of this run, or does not lead back to
        its code, data and settings.
        """
        summary = self.read_json(SUMMARY)
        if summary and (why := self._contradiction(summary)):
            raise UnreadableError(f"{self.path}: {why}")
        return summary

    def _contradiction(self, summary: Mapping[str, Any]) -> str:
        seed = re.search(r"-s(\d+)-", self.id)
        if why := problem(summary, {"run": self.id} | ({"seed": int(seed[1])} if seed else {})):
            return why
        if not self.read_json(PROVENANCE):
            return f"{PROVENANCE} is missing, so its code and data are unknown"
        try:
            return other_config(summary, content(self.path / CONFIG))
        except FileNotFoundError:
            return f"{CONFIG} is missing"

    @contextmanager
    def claim(self) -> Iterator[Claim]:
        """Holds the run for this process; call ``check`` on the claim before writing into the folder.

        Raises RunFolderError while another process, on any machine, holds the run, and where the folder cannot be
        written.
        """
        claim = take(self.path)
        try:
            yield claim
        finally:
            claim.release()

    def holder(self) -> Holder | None:
        """The live process that holds the run, on any machine. Changes nothing."""
        return holder_of(self.path)

    def refuse_held(self) -> None:
        """Raises RunFolderError, as ``claim`` would, while a live process holds the run. Changes nothing."""
        if holder := self.holder():
            raise held_error(self.path, holder)


def _may_be_run(path: Path) -> bool:
    try:
        return exists(path / CONFIG)
    except UnreadableError:
        return True


def _settings_of(frozen: Config, settings: Collection[str] | None) -> dict[str, Any]:
    """A config as nested keys and values; only some dotted keys unless ``settings`` is None."""
    config = frozen.as_dict()
    if settings is None:
        return config
    sections = {
        name: {key: setting for key, setting in value.items() if f"{name}.{key}" in settings}
        for name, value in config.items()
        if name in SECTIONS
    }
    return {
        name: sections.get(name, value) for name, value in config.items() if (name in settings or sections.get(name))
    }
