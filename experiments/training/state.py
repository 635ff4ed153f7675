"""What of a run outlives its process: the one list of what a checkpoint holds, how it is written and restored."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from errors import DataError, RunFolderError
from experiments.config import scientific
from experiments.data.ledger import Ledger
from experiments.folder import checkpoint, provenance
from experiments.folder.claim import Claim
from experiments.folder.fingerprint import run_modules
from experiments.folder.metrics_log import MetricsLog
from experiments.folder.run_folder import RunFolder
from experiments.schema import Config
from experiments.training.devices import Group
from experiments.training.learner import Learner
from run_format import INIT_SHA256, METRICS, PROVENANCE

log = logging.getLogger("experiments")


@dataclass
class Counters:
    """How far a run is. step: optimizer steps done; rows: of the log; loss_sum: over the steps since the last row;
    last: metrics of the last evaluation; seconds: of earlier processes of this run; notes: what a reader of the result
    should know."""

    step: int = 0
    rows: int = 0
    loss_sum: float = 0.0
    last: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


class RunState:
    """Saves and restores a run in progress, and keeps its log and provenance true to where it is.

    code: fingerprint of the sources that are running.
    """

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        group: Group,
        claims: Sequence[Claim],
        learner: Learner,
        ledger: Ledger,
        code: str,
    ):
        self.config, self.folder, self.group, self.claims = config, folder, group, claims
        self.learner, self.ledger, self.code = learner, ledger, code
        self.modules = run_modules(config)
        self.counters = Counters()
        self.detached = False  # while set, nothing is saved, and rows are added in memory only
        self.replays: list[dict[str, Any]] = []  # of this process; provenance keeps those of earlier ones
        self.metrics = MetricsLog(folder.path / METRICS)
        self.saver = checkpoint.Saver(folder.checkpoints, config.machine.keep_checkpoints, config.machine.failed_saves)
        self._saved = self._started = time.monotonic()

    @property
    def minutes_since_save(self) -> float:
        """Minutes since the state was last saved, or since this process started."""
        return (time.monotonic() - self._saved) / 60

    def start_clock(self) -> None:
        """From now on time counts as the run's."""
        self._started = time.monotonic()

    def elapsed(self) -> float:
        """Seconds of training and evaluation, over all processes that the run has had."""
        return self.counters.seconds + time.monotonic() - self._started

    def check_claims(self) -> None:
        """To be called before the folder is written. Raises RunFolderError once another process has the run."""
        for claim in self.claims:
            claim.check()

    def note(self, note: str) -> None:
        """Records what a reader of the result should know, in the log and in the summary."""
        self.counters.notes.append(note)
        log.warning("%s: %s", self.folder.id, note)

    def append_row(self, row: dict[str, Any]) -> None:
        """Adds a row to the log."""
        if self.detached:
            self.metrics.rows.append(json.dumps(row))
        elif self.group.first:
            self.metrics.append(row)
        self.counters.rows += 1

    def save(self, wait: bool = False, lasting: bool = False) -> None:
        """Begins to save the state. wait: return when it is on disk or its failure is noted; lasting: never pruned."""
        self._saved = time.monotonic()
        self.check_claims()
        if self.detached or not self.group.first:
            return
        self.saver.start(self.content(), f"step-{self.counters.step:09d}-rows-{self.counters.rows:04d}", lasting)
        if wait:
            self.saver.settle(wait=True)

    def content(self) -> dict[str, Any]:
        """All that a checkpoint holds; tensors are those in use, not copies."""
        counters = asdict(self.counters) | {"seconds": self.elapsed()}
        return {
            "config": scientific(self.config),
            "code": self.code,
            "modules": self.modules,
            "split": self.learner.split,
            **self.learner.state(),
            "ledger": self.ledger.state(),
            **counters,
            "log": self.metrics.rows,
        }

    def restore(self, force: bool) -> bool:
        """Goes back to the newest valid checkpoint and returns True; where there has been none, returns False.

        force: also to one that other code wrote. Raises RunFolderError for a checkpoint of another
        run or other code.
        """
        newest = self.group.first_does(lambda: checkpoint.newest_valid(self.folder.checkpoints))
        if newest.path is None:
            self.group.first_does(lambda: self.metrics.restore([]))
            return False
        state = checkpoint.read(newest.path)
        self.refuse_other_run(state, newest.path)
        if state["code"] != self.code:
            self._accept_code(state, newest.path, force)
        self.load(state, newest.path)
        self.counters.notes = [*state["notes"], *newest.notes, *self.counters.notes]
        self._note_split(state["split"])
        self.group.first_does(lambda: self.metrics.restore(state["log"]))
        return True

    def load(self, state: dict[str, Any], path: Path) -> None:
        """Continues from the content of a checkpoint. The log stays as it is."""
        try:
            self.learner.load(state)
        except RuntimeError:
            raise RunFolderError(f"{self.folder.id}: {path.name} does not fit the model of this code") from None
        self.ledger.restore(state["ledger"])
        notes = self.counters.notes
        self.counters = Counters(**{name: state[name] for name in asdict(Counters())})
        self.counters.notes = notes
        self.saver.newest = path.stem

    def refuse_other_run(self, state: dict[str, Any], path: Path) -> None:
        """Raises RunFolderError for a checkpoint whose settings are not those of this run."""
        own, saved = scientific(self.config), state.get("config", {})
        for key in sorted((own.keys() | saved.keys()) - {"init"}):  # a parent may lie elsewhere by now
            if saved.get(key) != own.get(key):
                raise RunFolderError(
                    f"{self.folder.id}: {path.name} is of another run: its {key} is {saved.get(key)}, "
                    f"not {own.get(key)}"
                )

    def _accept_code(self, state: dict[str, Any], path: Path, force: bool) -> None:
        """Raises RunFolderError for a checkpoint that other code wrote, unless ``force`` or a replay was equal."""
        if self.replays:
            return
        if not force:
            before = state.get("modules", {})
            changed = [name for name in {**before, **self.modules} if before.get(name) != self.modules.get(name)]
            named = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
            difference = f" ({named} changed)" if before else ""
            raise RunFolderError(
                f"{self.folder.id}: {path.name} was written by other code{difference}; "
                "go back to that code, show with --replay that this code computes the same, or go on with --force, "
                "which marks the run and keeps it out of averages"
            )
        self.note("resumed with other code than it started with")

    def _note_split(self, before: list[int]) -> None:
        if before != self.learner.split:
            now, then = (" × ".join(map(str, split)) for split in (self.learner.split, before))
            self.note(
                f"resumed with another split of the batch (devices × micro-batches: {now}, before: {then}): "
                "equal to the uninterrupted run up to rounding, not bit by bit"
            )

    def write_provenance(self, data_fingerprint: str, sampler: str, init_sha256: str | None) -> None:
        """Records where the run's numbers come from. Raises DataError where the data changed since it started.

        init_sha256: of the file of initial weights, if there is one.
        """
        now = provenance.collect(data_fingerprint, self.code, sampler)
        if init_sha256:
            now[INIT_SHA256] = init_sha256
        before = self.folder.read_json(PROVENANCE)
        if before.get("data_fingerprint", data_fingerprint) != data_fingerprint:
            raise DataError(f"{self.folder.id}: the data set's files changed since this run started")
        if self.counters.step:
            self._compare_provenance(now, before)
        self.folder.write_json(PROVENANCE, now)

    def _compare_provenance(self, now: dict[str, Any], before: dict[str, Any]) -> None:
        """Keeps the code that the run began with, and notes packages and samplers that changed."""
        code = before.get("code_fingerprint", self.code)
        if replays := [*before.get("replays", []), *self.replays]:
            now["replays"] = replays
        accepted = provenance.accepted_codes({**before, "replays": replays})
        # a run of several codes is not averaged with runs of one
        now["code_fingerprint"] = code if not accepted or self.code in accepted else f"{code}+{self.code}"
        for package, version in before.get("packages", {}).items():
            if now["packages"].get(package) != version:
                self.note(f"resumed with {package} {now['packages'].get(package)}, before {version}")
        if before.get("sampler", now["sampler"]) != now["sampler"]:  # equal up to rounding
            self.note(f"resumed with sampler {now['sampler']}, before {before['sampler']}")
