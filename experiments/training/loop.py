"""The training loop: from a frozen config to a summary, for every task alike, on one device or several."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import torch

from atm import sampling
from errors import RunFailed, WriteError
from experiments.data.batch import Batch
from experiments.data.ledger import Ledger
from experiments.data.loading import Batches
from experiments.data.order import Share
from experiments.folder.claim import Claim
from experiments.folder.fingerprint import run_fingerprint
from experiments.folder.parent import refuse_other_weights, weights_of
from experiments.folder.run_folder import RunFolder
from experiments.interrupts import Interrupted, Interrupts
from experiments.schema import Config
from experiments.tasks import Evaluation
from experiments.tasks.registry import build_task
from experiments.training.devices import Group, joined, prepare
from experiments.training.evaluation import Evaluator
from experiments.training.learner import Learner
from experiments.training.outcome import logged, noted
from experiments.training.progress import Progress
from experiments.training.replay import replay
from experiments.training.schedules import Timetable
from experiments.training.state import RunState
from experiments.training.summary import summarise, write_results
from results.file_hash import sha256
from results.run_folders.numbers import not_finite

STATE_SECONDS = 2.0  # between two writings of state.json
log = logging.getLogger("experiments")


def run(folder: RunFolder, bar: bool = False, other_code: str | None = None) -> dict[str, Any]:
    """Trains the run of a frozen folder to its end and returns its summary; a finished run is only read.

    Where several processes were started for it, every one of them calls this. other_code: how to go on from a
    checkpoint that other code wrote: None refuses it, "replay" accepts it where this code computes the same, "force"
    accepts it and marks the run. Raises Interrupted after saving the state, RunFailed when the run cannot go on;
    ``state.json`` says either.
    """
    with Interrupts() as interrupts, joined(folder.config()) as group, ExitStack() as stack:
        claims: list[Claim] = []
        group.first_does(lambda: claims.append(stack.enter_context(folder.claim())))
        if summary := group.first_does(folder.finished):
            return summary
        stack.enter_context(logged(folder, group))
        stack.enter_context(noted(folder, group, claims))
        if number := int(group.gather([interrupts.received or 0]).max()):
            raise Interrupted(number)  # before there is anything to save
        if group.first:
            folder.set_state("running", step=0)
        return Training(folder.config(), folder, group, claims, interrupts, bar and group.first).run(other_code)


class Training:
    """One run in progress. Every random choice follows from (seed, epoch, index, step), none from history."""

    def __init__(
        self, config: Config, folder: RunFolder, group: Group, claims: list[Claim], interrupts: Interrupts, bar: bool
    ):
        self.config, self.folder, self.group, self.claims, self.interrupts = config, folder, group, claims, interrupts
        code = run_fingerprint(config)  # of the code that runs now, whatever is edited meanwhile
        self.device = prepare(config, group)
        # processes on machines with other compilers may read tokens otherwise
        self.sampler = " and ".join(dict.fromkeys(group.gather_objects(sampling.describe(self.device.type))))
        self.task = build_task(config)
        self.share = Share(group.rank, group.size, config.machine.batch_per_device, self.task.mixed_parts)
        self.batches = self._batches(self.task.train_set, training=True)
        self.eval_batches = self._batches(self.task.eval_set, training=False)
        self.timetable = Timetable.of(config.train, len(self.batches))

        self.learner = Learner(
            config, self.task, group, self.device, self.share, self.timetable.steps_per_epoch, folder.path.parent
        )
        self.ledger = Ledger(self.task.train_set, config.data.bad_image_tolerance)
        self.state = RunState(config, folder, group, claims, self.learner, self.ledger, code)
        self.evaluator = Evaluator(
            self.task, self.eval_batches, group, interrupts, self.ledger, self.learner.autocast, self._stop_if_asked
        )
        self.progress = Progress(self.timetable.steps, config.train.batch_size, bar)
        self._state_written = time.monotonic()

    def run(self, other_code: str | None) -> dict[str, Any]:
        """Goes on from the newest checkpoint to the end of the run and returns its summary."""
        if other_code == "replay":
            replay(self)
        if not self.state.restore(force=other_code == "force"):
            for note in self.learner.notes:
                self.state.note(note)
        self.group.first_does(self._write_provenance)
        counters = self.state.counters
        where = f"{self.group.size} × {self.device.type}" if self.group.size > 1 else str(self.device)
        begin = f"goes on from step {counters.step} of" if counters.step else "trains"
        log.info("%s: %s %d steps on %s", self.folder.id, begin, self.timetable.steps, where)
        log.info("sampler: %s", self.sampler)
        if self.group.size > 1:
            self.learner.rehearse()
        self.state.start_clock()
        try:
            with self.progress:
                evaluation = Evaluation({})
                while counters.rows < self.timetable.rows:
                    self._train_row()
                    evaluation = self._finish_row()
                if not evaluation.metrics:  # interrupted between the last evaluation and the summary
                    evaluation = self._evaluate()
            if broken := not_finite(counters.last):
                raise RunFailed(f"{broken} after the last step, not a finite number")
            summary = summarise(self, evaluation)
            if self.group.first:
                write_results(self, summary, evaluation)
            return summary
        finally:
            self.close()

    def close(self) -> None:
        """Ends the loader processes and waits for a save that is under way."""
        for batches in (self.batches, self.eval_batches):
            batches.close()
        self.state.saver.close()

    def train_steps(self, first: int, end: int) -> Iterator[bool]:
        """Trains from step ``first`` up to ``end``; after each step says whether a checkpoint is due."""
        self.learner.model.train()
        while first < end:
            epoch, start = divmod(first, self.timetable.steps_per_epoch)
            steps = self.batches.steps(epoch, start)
            for micro_batches in steps:
                yield self._train_step(micro_batches)
                first += 1
                if first == end:
                    steps.close()
                    return

    def advance(self, step: int, rows: int) -> None:
        """Goes on to a step, in a state in which so many rows of the log are complete."""
        while self.state.counters.rows < rows:
            self._train_row()
            self._finish_row()
        if self.state.counters.step < step:
            self._train_row(step)

    def _train_row(self, until: int | None = None) -> None:
        """Trains up to the end of the current row of the log, or to a step before it."""
        counters = self.state.counters
        row = counters.rows
        begin, end = row * self.timetable.row_steps, until or self.timetable.end_of_row(row)
        if counters.step == begin:
            counters.loss_sum = 0.0
        for checkpoint_due in self.train_steps(counters.step, end):
            where = f"epoch {row + 1}" if self.timetable.in_epochs else f"step {counters.step}"
            self.progress.step(counters.step, where, counters.loss_sum / (counters.step - begin))
            self._between_steps(checkpoint_due)

    def _train_step(self, micro_batches: list[Batch]) -> bool:
        """One optimizer step; returns whether a checkpoint is due after it."""
        counters = self.state.counters
        newly_bad = sum(self.ledger.note(batch) for batch in micro_batches)
        due = self.state.minutes_since_save > self.config.machine.checkpoint_minutes
        votes = [self.interrupts.received or 0, due, newly_bad]
        loss, everyones = self.learner.step(counters.step, micro_batches, votes)
        counters.step += 1
        counters.loss_sum += loss
        self.signal = int(everyones[:, 0].max())
        if everyones[:, 2].any():
            self.ledger.merge(self.group.gather_objects(self.ledger.state()))
        return bool(everyones[0, 1])

    def _between_steps(self, checkpoint_due: bool) -> None:
        self._stop_if_asked(self.signal)
        if checkpoint_due and self.state.saver.settle():
            self.state.save()
        if time.monotonic() - self._state_written > STATE_SECONDS:
            self._state_written = time.monotonic()
            self._write_state()

    def _stop_if_asked(self, signal: int) -> None:
        """Saves the state and raises Interrupted where any process received a signal or this one lost its claim."""
        if signal or any(claim.lost for claim in self.claims):
            self.state.save(wait=True)
            self._write_state()
            raise Interrupted(signal)

    def _finish_row(self) -> Evaluation:
        """Evaluates where it is due, writes the row, then saves."""
        counters, timetable, row = self.state.counters, self.timetable, self.state.counters.rows
        evaluation = Evaluation({})
        steps = counters.step - row * timetable.row_steps
        content: dict[str, Any] = {"step": counters.step} | ({"epoch": row + 1} if timetable.in_epochs else {})
        content["train/loss"] = counters.loss_sum / steps
        content["train/lr"] = self.learner.learning_rate
        if timetable.is_judged(row):
            evaluation = self._evaluate()
            content.update(counters.last)
        self.state.append_row(content)
        metrics = "  ".join(f"{name} {value:.4g}" for name, value in content.items() if "/" in name)
        log.info("%s  %s  %.0f img/s", timetable.describe(row), metrics, self.progress.rate)
        lasting = counters.rows % self.config.machine.keep_every_epochs == 0
        last = counters.rows == timetable.rows
        if lasting or last or self.state.saver.settle():  # a disk that is slower than the epochs does not hold them up
            self.state.save(lasting=lasting)
        self.progress.skip()
        return evaluation

    def _evaluate(self) -> Evaluation:
        """Judges the raw and, where there are any, the averaged weights."""
        self._write_state(phase="evaluating")
        evaluation = self.evaluator.evaluate(self.learner.judged)
        self.state.counters.last = evaluation.metrics
        return evaluation

    def _write_provenance(self) -> None:
        fingerprint = f"{self.task.train_set.fingerprint()}-{self.task.eval_set.fingerprint()}"
        init, runs_dir, init_sha256 = self.config.init, self.folder.path.parent, None
        if init:
            refuse_other_weights(self.folder, init, runs_dir)
            init_sha256 = sha256(weights_of(init, runs_dir))
        self.state.write_provenance(fingerprint, self.sampler, init_sha256)

    def _write_state(self, phase: str = "training") -> None:
        """Writes ``state.json`` for ``status=`` and other readers of the folder; a full disk must not end it."""
        if not self.group.first:
            return
        counters, timetable = self.state.counters, self.timetable
        row = min(counters.rows, timetable.rows - 1)
        epochs = {"epoch": row + 1, "epochs": timetable.rows} if timetable.in_epochs else {}
        with suppress(WriteError):
            self.folder.set_state(
                "running",
                phase=phase,
                **epochs,
                step=counters.step,
                steps=timetable.steps,
                images_per_s=self.progress.rate,
                seconds_left=self.progress.left(counters.step),
                problem=self.state.saver.problem,
            )

    def _batches(self, dataset: Any, training: bool) -> Batches:
        config, at_once = self.config, self.config.machine.batch_per_device
        return Batches(
            dataset,
            config.train.batch_size if training else min(config.train.batch_size, at_once or config.train.batch_size),
            config.seed,
            shuffle=training,
            workers=config.data.workers,
            device=self.device,
            repeats=config.augment.repeats if training else 1,
            share=self.share,
            memory_format=torch.channels_last if config.machine.channels_last else torch.contiguous_format,
        )
