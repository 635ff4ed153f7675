"""The training loop: from a frozen config to a summary, for every task alike, on one device or several."""

from __future__ import annotations

import io
import logging
import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from datetime import datetime, timezone
from typing import Any

import numpy as np
import torch
from timm.utils import get_state_dict
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import atomic_file
from atm import sampling
from errors import DataError, RunFailed, RunFolderError, WriteError
from experiments.config import scientific
from experiments.data.ledger import Ledger
from experiments.data.loading import Batch, Batches
from experiments.data.order import Share, seed_generators, stream
from experiments.folder import checkpoint, provenance, weights
from experiments.folder.claim import Claim
from experiments.folder.parent import WEIGHTS
from experiments.folder.run_folder import MetricsLog, RunFolder
from experiments.interrupts import Interrupted, Interrupts
from experiments.schema import Config
from experiments.tasks import Evaluation, Judge
from experiments.tasks.registry import build_task
from experiments.training.devices import Group, joined, prepare
from experiments.training.drop_path import place_drop_paths
from experiments.training.optimization import build_ema, build_optimizer, build_schedule, restore_optimizer, set_lr
from experiments.training.outcome import logged, noted
from experiments.training.progress import Progress

STATE_SECONDS = 2.0
log = logging.getLogger("experiments")


def run(folder: RunFolder, bar: bool = False, force: bool = False) -> dict[str, Any]:
    """Trains the run of a frozen folder to its end and returns its summary; a finished run is only read.

    Where several processes were started for it, every one of them calls this. force: go on with a checkpoint of other
    code. Raises Interrupted after saving the state, RunFailed when the run cannot go on; either is in ``state.json``.
    """
    with Interrupts() as interrupts, joined(folder.config()) as group, ExitStack() as held:
        claims: list[Claim] = []
        group.first_does(lambda: claims.append(held.enter_context(folder.claim())))
        if summary := group.first_does(folder.finished):
            return summary
        held.enter_context(logged(folder, group))
        held.enter_context(noted(folder, group, claims))
        if asked := int(group.gather([interrupts.received or 0]).max()):
            raise Interrupted(asked)  # before there is anything to save
        if group.first:
            folder.set_state("running", step=0)
        return Training(folder.config(), folder, group, claims, interrupts, bar and group.first).run(force)


class Training:
    """One run in progress. Every random choice follows from (seed, epoch, index, step), none from history."""

    def __init__(
        self, config: Config, folder: RunFolder, group: Group, claims: list[Claim], interrupts: Interrupts, bar: bool
    ):
        self.config, self.folder, self.group, self.claims, self.interrupts = config, folder, group, claims, interrupts
        self.code = provenance.code_fingerprint()  # of what runs now, whatever is edited meanwhile
        self.device = prepare(config, group)
        # processes on machines with other compilers may read tokens otherwise
        self.sampler = " and ".join(dict.fromkeys(group.gather_objects(sampling.describe(self.device.type))))
        self.task = build_task(config)
        train, machine = config.train, config.machine
        self.batches = self._batches(self.task.train_set, training=True)
        self.eval_batches = self._batches(self.task.eval_set, training=False)
        self.steps_per_epoch = len(self.batches)
        self.steps = train.epochs * self.steps_per_epoch

        torch.manual_seed(config.seed)
        self.model = self.task.build_model()
        if config.init:
            weights.initialise(self.model, config.init, folder.path.parent)
        self.draws = place_drop_paths(self.model, self.device)
        self.model.to(self.device)
        if machine.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = build_optimizer(self.model, train)
        self.schedule = build_schedule(self.optimizer, train, self.steps_per_epoch)
        self.ema = build_ema(self.model, train)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=train.precision == "float16")
        self.forward = group.wrap(torch.compile(self.model) if machine.compile else self.model, self.device)  # type: ignore[arg-type]
        self.metrics = MetricsLog(folder.path / "metrics.jsonl")
        self.saver = checkpoint.Saver(folder.checkpoints, machine.keep_checkpoints, machine.failed_saves)
        self.ledger = Ledger(self.task.train_set, config.data.bad_image_tolerance)
        self.progress = Progress(self.steps, train.batch_size, bar)
        self.stop = 0  # the signal that asks for one, once all processes know of it
        self.step = 0
        self.epochs_logged = 0  # behind step // steps_per_epoch while an epoch is being judged
        self.loss_sum = 0.0  # over the current epoch
        self.seconds = 0.0
        self.last: dict[str, float] = {}
        self.notes: list[str] = []
        self._saved = time.monotonic()  # or found saved

    def run(self, force: bool) -> dict[str, Any]:
        self._restore(force)
        self.group.first_does(self._write_provenance)
        where = f"{self.group.size} × {self.device.type}" if self.group.size > 1 else str(self.device)
        log.info("%s: %d steps from step %d on %s", self.folder.id, self.steps, self.step, where)
        log.info("sampler: %s", self.sampler)
        self._settle_gradient_buckets()
        self._started = self._state_written = time.monotonic()
        try:
            with self.progress:
                evaluation = Evaluation({})
                for epoch in range(self.epochs_logged, self.config.train.epochs):
                    self._train_epoch(epoch)
                    evaluation = self._finish_epoch(epoch)
                if not evaluation.metrics:  # interrupted between the last evaluation and the summary
                    evaluation = self._evaluate(self.config.train.epochs - 1)
            return self._summarise(evaluation)
        finally:
            self.close()

    def close(self) -> None:
        """Ends the loader processes and lets a save that is under way end."""
        for batches in (self.batches, self.eval_batches):
            batches.close()
        self.saver.close()

    def _train_epoch(self, epoch: int) -> None:
        done = self.step - epoch * self.steps_per_epoch
        if done == 0:
            self.loss_sum = 0.0
        for due in self.train_steps(epoch, done):
            done += 1
            self.progress.step(self.step, epoch, self.loss_sum / done)
            self._between_steps(epoch, due)

    def train_steps(self, epoch: int, first: int = 0) -> Iterator[bool]:
        """Trains an epoch from its step ``first`` on; after each step says whether a checkpoint is due."""
        self.model.train()
        for micro_batches in self.batches.steps(epoch, first):
            yield self._train_step(micro_batches)

    def _train_step(self, micro_batches: list[Batch]) -> bool:
        """One optimizer step; whether a checkpoint is due after it."""
        config, group = self.config, self.group
        set_lr(self.schedule, config.train, self.step, self.steps_per_epoch)
        newly_bad = sum(self.ledger.note(batch) for batch in micro_batches)
        mixing = int(stream(config.seed, self.step, purpose="mixing").integers(2**32))  # one for the whole batch
        micro_batches = [self.task.prepare(batch, mixing) for batch in micro_batches]
        counts = [float(self.task.count(batch)) for batch in micro_batches]
        whole = float(group.gather([sum(counts)]).sum())
        losses: list[tuple[Tensor, float]] = []
        for number, (batch, count) in enumerate(zip(micro_batches, counts)):
            seed_generators(config.seed, self.step, group.rank, number, purpose="step")
            self.draws.draw(config.seed, self.step, config.train.batch_size, self.batches.places[number])
            share = count / whole if whole else 0.0
            with self._synchronised(number + 1 == len(micro_batches)):
                with self._autocast():
                    loss = self.task.loss(self.forward(self._images(batch[0])), batch)
                losses.append((loss.detach(), share))
                # the gradients of all processes are averaged, those of micro-batches added
                self.scaler.scale(loss * (share * group.size)).backward()  # type: ignore[no-untyped-call]
        # read only now, when a GPU has all that it can do before the loss is known
        value = 0.0
        for loss, share in losses:
            value += float(loss) * share
        due = time.monotonic() - self._saved > 60 * config.machine.checkpoint_minutes
        said = group.gather([value, self.interrupts.received or 0, due, newly_bad])
        value = float(said[:, 0].sum())
        if not math.isfinite(value):
            raise RunFailed(f"non-finite loss at step {self.step}")
        if said[:, 3].any():
            self.ledger.merge(group.gather_objects(self.ledger.state()))
        if config.train.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), config.train.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.ema is not None:
            self.ema.update(self.model)
        self.loss_sum += value
        self.stop = int(said[:, 1].max())
        return bool(said[0, 2])

    def _between_steps(self, epoch: int, due: bool) -> None:
        self._stop_if_asked()
        if due and self.saver.settle():
            self._save()
        now = time.monotonic()
        if now - self._state_written > STATE_SECONDS:
            self._state_written = now
            self._write_state(epoch)

    def _stop_if_asked(self) -> None:
        """Saves the state and raises Interrupted where a signal, agreed on by all processes, asked for it."""
        if self.stop or any(claim.lost for claim in self.claims):
            self._save(wait=True)
            self._write_state(self.step // self.steps_per_epoch)  # how far it is, which its last state keeps
            raise Interrupted(self.stop)

    def _finish_epoch(self, epoch: int) -> Evaluation:
        """Evaluates where it is due, logs the epoch, then saves."""
        evaluation = Evaluation({})
        row: dict[str, Any] = {"step": self.step, "epoch": epoch + 1}
        row["train/loss"] = self.loss_sum / self.steps_per_epoch
        row["train/lr"] = max(group["lr"] for group in self.optimizer.param_groups)
        if (epoch + 1) % self.config.train.eval_every == 0 or epoch + 1 == self.config.train.epochs:
            evaluation = self._evaluate(epoch)
            row.update(self.last)
        if self.group.first:
            self.metrics.append(row)
        self.epochs_logged = epoch + 1
        said = "  ".join(f"{name} {value:.4g}" for name, value in row.items() if "/" in name)
        log.info("epoch %d/%d  %s  %.0f img/s", epoch + 1, self.config.train.epochs, said, self.progress.rate)
        lasting = self.epochs_logged % self.config.machine.keep_every_epochs == 0
        last = self.epochs_logged == self.config.train.epochs
        if lasting or last or self.saver.settle():  # a disk that is slower than the epochs does not hold them up
            self._save(lasting=lasting)
        self.progress.skip()
        return evaluation

    def _evaluate(self, epoch: int) -> Evaluation:
        """Judges the raw and, where there are any, the averaged weights; returns what is said of the latter.

        Every image counts exactly once, whichever process reads it; one that cannot be read is an error.
        """
        judges: dict[str, Judge] = {}
        self._write_state(epoch, phase="evaluating")
        seen = sum(self.judge_batches(judges))
        everyones: list[tuple[int, dict[str, Judge]]] = self.group.gather_objects((seen, judges))
        judged, whole = sum(count for count, _ in everyones), len(self.task.eval_set)  # type: ignore[arg-type]
        if judged != whole:
            raise RunFailed(f"{judged} images were judged, the evaluation set has {whole}")
        self.last = {}
        for prefix, judge in everyones[0][1].items():
            for _, others in everyones[1:]:
                judge.merge(others[prefix])
            evaluation = judge.evaluation()
            self.last.update({f"{prefix}/{name}": value for name, value in evaluation.metrics.items()})
        return evaluation

    @torch.no_grad()
    def judge_batches(self, judges: dict[str, Judge]) -> Iterator[int]:
        """Fills ``judges`` from this process's share of the evaluation set; after each batch, the images in it."""
        models: dict[str, nn.Module] = {"eval": self.model}
        if self.ema is not None:
            models["eval_ema"] = self.ema.module
        judges.update({prefix: self.task.judge() for prefix in models})
        for model in models.values():
            model.eval()
        for batch in self._judged_batches():
            for prefix, model in models.items():
                with self._autocast():
                    output = model(self._images(batch[0]))
                judges[prefix].add(output, batch)
            yield len(batch[0])

    def _judged_batches(self) -> Iterator[Batch]:
        """The evaluation batches of this process; all processes stop together when a signal came."""
        batches = self.eval_batches.evaluation()
        while True:
            batch = next(batches, None)
            if batch is not None:
                self.ledger.refuse(self.task.eval_set, batch)
                yield batch
            said = self.group.gather([self.interrupts.received or 0, batch is not None])
            self.stop = int(said[:, 0].max())
            self._stop_if_asked()
            if not said[:, 1].any():
                return

    def _summarise(self, evaluation: Evaluation) -> dict[str, Any]:
        from atm.complexity import count

        self.saver.settle(wait=True)
        size = count(self.model, (3, *self.config.data.image_size))
        summary = {
            "run": self.folder.id,
            "experiment": self.config.experiment,
            "protocol": self.config.protocol,
            "task": self.config.task,
            "seed": self.config.seed,
            "model": self.config.model.name,
            "step": self.step,
            "epochs": self.config.train.epochs,
            "metrics": self.last,
            "curves": evaluation.curves,
            "params_m": size.params / 1e6,
            "flops_g": size.flops / 1e9,
            "wall_s": round(self._elapsed(), 1),
            "images_per_s": self.progress.rate,
            "device": str(self.device),
            "devices": self.group.size,
            "bad_images": list(self.ledger.state().values()),
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "notes": self.notes,
        }
        if self.group.first:
            self._write_results(summary, evaluation)
        return summary

    def _write_results(self, summary: dict[str, Any], evaluation: Evaluation) -> None:
        """The summary is written last: where it is, everything else is."""
        for claim in self.claims:
            claim.check()
        self.metrics.flush()
        if evaluation.examples:
            packed = io.BytesIO()
            np.savez_compressed(packed, **evaluation.examples)  # type: ignore[arg-type]
            atomic_file.write(self.folder.path / "examples.npz", packed.getvalue())
        weights.export(get_state_dict(self.ema or self.model), self.folder.path / WEIGHTS)
        self.folder.write_json("summary.json", summary)
        self.folder.set_state("done", step=self.step, steps=self.steps)

    def _restore(self, force: bool) -> None:
        found = self.group.first_does(lambda: checkpoint.newest_valid(self.folder.checkpoints))
        if found.path is None:
            self.group.first_does(lambda: self.metrics.restore([]))
            return
        state = checkpoint.read(found.path)
        self._refuse_foreign(state, found.path.name, force)
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError:
            raise RunFolderError(f"{self.folder.id}: {found.path.name} does not fit the model of this code") from None
        restore_optimizer(self.optimizer, state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        self.step, self.epochs_logged = state["step"], state["epochs_logged"]
        self.loss_sum, self.seconds, self.last = state["loss_sum"], state["seconds"], state["last"]
        self.notes = [*state["notes"], *found.notes, *self.notes]
        self.ledger.restore(state["ledger"])
        self.saver.newest = found.path.stem
        self.group.first_does(lambda: self.metrics.restore(state["rows"]))

    def _refuse_foreign(self, state: dict[str, Any], name: str, force: bool) -> None:
        """Raises RunFolderError for a checkpoint of another run, or of other code unless that is wanted."""
        own, found = scientific(self.config), state.get("config", {})
        for key in sorted((own.keys() | found.keys()) - {"init"}):  # a parent may lie elsewhere by now
            if found.get(key) != own.get(key):
                raise RunFolderError(
                    f"{self.folder.id}: {name} is of another run: its {key} is {found.get(key)}, not {own.get(key)}"
                )
        if state["code"] != self.code:
            if not force:
                raise RunFolderError(
                    f"{self.folder.id}: {name} was written by other code (atm/ or experiments/ changed since); go back "
                    "to that code, or go on with --force, which marks the run and keeps it out of averages"
                )
            self._note("resumed with other code than it started with")
        if state["split"] != self._split():
            then, now = (" × ".join(map(str, split)) for split in (state["split"], self._split()))
            self._note(
                f"resumed with another split of the batch (devices × micro-batches: {now}, before: {then}): "
                "equal to the uninterrupted run up to rounding, not bit by bit"
            )

    def _note(self, note: str) -> None:
        """Something a reader of the result should know: in the log and in the summary."""
        self.notes.append(note)
        log.warning("%s: %s", self.folder.id, note)

    def _save(self, wait: bool = False, lasting: bool = False) -> None:
        """Begins to save the state; with ``wait`` it is on disk, or the failure noted, when this returns."""
        self._saved = time.monotonic()
        for claim in self.claims:
            claim.check()
        if not self.group.first:
            return
        state = {
            "config": scientific(self.config),
            "code": self.code,
            "split": self._split(),
            "model": self.model.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "epochs_logged": self.epochs_logged,
            "loss_sum": self.loss_sum,
            "seconds": self._elapsed(),
            "last": self.last,
            "rows": self.metrics.rows,
            "notes": self.notes,
            "ledger": self.ledger.state(),
        }
        self.saver.start(state, f"step-{self.step:09d}-epoch-{self.epochs_logged:04d}", lasting)
        if wait:
            self.saver.settle(wait=True)

    def _split(self) -> list[int]:
        """Devices, and micro-batches of the first: where they change, sums are rounded in another order."""
        first = Share(0, self.group.size, self.config.machine.batch_per_device)
        return [self.group.size, len(first.places(self.config.train.batch_size))]

    def _write_provenance(self) -> None:
        fingerprint = self.task.train_set.fingerprint() + "-" + self.task.eval_set.fingerprint()  # type: ignore[attr-defined]
        now, before = provenance.collect(fingerprint, self.code, self.sampler), self.folder.read_json("provenance.json")
        if before.get("data_fingerprint", fingerprint) != fingerprint:
            raise DataError(f"{self.folder.id}: the data set's files changed since this run started")
        code = before.get("code_fingerprint", self.code)
        if self.step and self.code not in code.split("+"):  # such a run is not averaged with runs of one code
            now["code_fingerprint"] = f"{code}+{self.code}"
        elif self.step:
            now["code_fingerprint"] = code
        for package, version in before.get("packages", {}).items() if self.step else ():
            if now["packages"].get(package) != version:
                self._note(f"resumed with {package} {now['packages'].get(package)}, before {version}")
        if self.step and before.get("sampler", self.sampler) != self.sampler:  # equal up to rounding
            self._note(f"resumed with sampler {self.sampler}, before {before['sampler']}")
        self.folder.write_json("provenance.json", now)

    def _write_state(self, epoch: int, phase: str = "training") -> None:
        """For whoever looks at the run; a disk that is full must not end it."""
        if not self.group.first:
            return
        with suppress(WriteError):
            self.folder.set_state(
                "running",
                phase=phase,
                epoch=epoch + 1,
                epochs=self.config.train.epochs,
                step=self.step,
                steps=self.steps,
                images_per_s=self.progress.rate,
                seconds_left=self.progress.left(self.step),
                problem=self.saver.problem,
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
            share=Share(self.group.rank, self.group.size, at_once),
        )

    def _settle_gradient_buckets(self) -> None:
        """DDP deals gradients into its buckets anew after the first backward, which changes the order of their sums:
        that happens here, before every start, so that a resumed run adds up as the uninterrupted one does."""
        if self.group.size > 1:
            images = torch.zeros(2, 3, *self.config.data.image_size, device=self.device)
            self.draws.draw(0, 0, 2, np.arange(2))
            self.model.train()
            with self._autocast():
                output = self.forward(self._images(images))
            output.float().sum().backward()
            self.optimizer.zero_grad(set_to_none=True)

    def _synchronised(self, last: bool) -> AbstractContextManager[Any]:
        """Gradients travel between processes once a step, with the last micro-batch."""
        if last or not isinstance(self.forward, DistributedDataParallel):
            return nullcontext()
        return self.forward.no_sync()  # type: ignore[no-any-return]

    def _autocast(self) -> AbstractContextManager[Any]:
        precision = self.config.train.precision
        return nullcontext() if precision == "float32" else torch.autocast(self.device.type, getattr(torch, precision))

    def _images(self, images: Tensor) -> Tensor:
        layout = torch.channels_last if self.config.machine.channels_last else torch.contiguous_format
        return images.contiguous(memory_format=layout)

    def _elapsed(self) -> float:
        return self.seconds + time.monotonic() - self._started
