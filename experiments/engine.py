"""The training loop: from a frozen config to a summary, for every task alike."""

from __future__ import annotations

import errno
import io
import logging
import math
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import datetime, timezone
from typing import Any

import numpy as np
import torch
from timm.utils import get_state_dict
from torch import Tensor, nn

import atomic_file
from errors import DataError, RunFailed, SuiteError
from experiments import checkpoint, provenance, weights
from experiments.config import Config
from experiments.data.loading import Batches
from experiments.data.order import stream
from experiments.interrupts import Interrupted, Interrupts
from experiments.ledger import Ledger
from experiments.optimization import build_ema, build_optimizer, build_schedule, set_lr
from experiments.progress import Progress
from experiments.run_folder import MetricsLog, RunFolder
from experiments.tasks import Evaluation
from experiments.tasks.registry import build_task

STATE_SECONDS = 2.0
log = logging.getLogger("experiments")


def run(folder: RunFolder, bar: bool = False) -> dict[str, Any]:
    """Trains the run of a frozen folder to its end and returns its summary; a finished run is only read.

    Raises Interrupted after saving the state, RunFailed when the run cannot go on; either is in ``state.json`` too.
    """
    with folder.claim():
        if summary := folder.finished():
            return summary
        handler = logging.FileHandler(folder.log)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S"))
        log.addHandler(handler)
        log.setLevel(logging.DEBUG)
        try:
            with Interrupts() as interrupts, _outcome(folder):
                folder.set_state("running", step=0)
                return Training(folder.config(), folder, interrupts, bar).run()
        finally:
            log.removeHandler(handler)
            handler.close()


class Training:
    """One run in progress. Every random choice follows from (seed, epoch, index, step), none from history."""

    def __init__(self, config: Config, folder: RunFolder, interrupts: Interrupts, bar: bool):
        self.config, self.folder, self.interrupts = config, folder, interrupts
        self.device = _prepare_machine(config)
        self.task = build_task(config)
        train = config.train
        self.batches = self._batches(self.task.train_set, training=True)
        self.eval_batches = self._batches(self.task.eval_set, training=False)
        self.steps_per_epoch = len(self.batches)
        self.steps = train.epochs * self.steps_per_epoch

        torch.manual_seed(config.seed)
        self.model = self.task.build_model()
        if config.init:
            weights.initialise(self.model, config.init, folder.path.parent)
        self.model.to(self.device)
        if config.machine.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = build_optimizer(self.model, train)
        self.schedule = build_schedule(self.optimizer, train, self.steps_per_epoch)
        self.ema = build_ema(self.model, train)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=train.precision == "float16")
        self.forward: Callable[[Tensor], Tensor] = torch.compile(self.model) if config.machine.compile else self.model
        self.metrics = MetricsLog(folder.path / "metrics.jsonl")
        self.ledger = Ledger(self.task.train_set, config.data.bad_image_tolerance)
        self.progress = Progress(self.steps, train.batch_size, bar)
        self.step = 0
        self.loss_sum = 0.0  # over the current epoch
        self.seconds = 0.0
        self.last: dict[str, float] = {}
        self.notes: list[str] = []

    def run(self) -> dict[str, Any]:
        self._restore()
        self._write_provenance()
        log.info("%s: %d steps from step %d on %s", self.folder.id, self.steps, self.step, self.device)
        self._started = time.monotonic()
        self._state_written = self._saved = self._started
        with self.progress:
            evaluation = Evaluation({})
            for epoch in range(self.step // self.steps_per_epoch, self.config.train.epochs):
                self._train_epoch(epoch)
                evaluation = self._finish_epoch(epoch)
            if not evaluation.metrics:  # interrupted between the last evaluation and the summary
                evaluation = self._evaluate(self.config.train.epochs - 1)
        return self._summarise(evaluation)

    def _train_epoch(self, epoch: int) -> None:
        self.model.train()
        first = self.step - epoch * self.steps_per_epoch
        if first == 0:
            self.loss_sum = 0.0
        for batch in self.batches.epoch(epoch, first):
            self._train_step(batch)
            self.progress.step(self.step, epoch, self.loss_sum / (self.step - epoch * self.steps_per_epoch))
            self._between_steps(epoch)

    def _train_step(self, batch: tuple[Tensor, ...]) -> None:
        seed = int(stream(self.config.seed, self.step, 1).integers(2**32))
        torch.manual_seed(seed)  # drop path and dropout
        set_lr(self.schedule, self.config.train, self.step, self.steps_per_epoch)
        self.ledger.note(batch)
        batch = self.task.prepare(batch, seed)
        with self._autocast():
            output = self.forward(self._images(batch[0]))
            loss = self.task.loss(output, batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise RunFailed(f"non-finite loss at step {self.step}")
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if self.config.train.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.train.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        if self.ema is not None:
            self.ema.update(self.model)
        self.loss_sum += value

    def _between_steps(self, epoch: int) -> None:
        now = time.monotonic()
        if self.interrupts.received is not None:
            self._save()
            raise Interrupted(self.interrupts.received)
        if now - self._saved > 60 * self.config.machine.checkpoint_minutes:
            self._save()
        if now - self._state_written > STATE_SECONDS:
            self._state_written = now
            self._write_state(epoch)

    def _finish_epoch(self, epoch: int) -> Evaluation:
        """Evaluates where it is due, logs the epoch, then saves: a state never runs ahead of its log."""
        evaluation = Evaluation({})
        row: dict[str, Any] = {"step": self.step, "epoch": epoch + 1}
        row["train/loss"] = self.loss_sum / self.steps_per_epoch
        row["train/lr"] = max(group["lr"] for group in self.optimizer.param_groups)
        if (epoch + 1) % self.config.train.eval_every == 0 or epoch + 1 == self.config.train.epochs:
            evaluation = self._evaluate(epoch)
            row.update(self.last)
        self.metrics.append(row)
        said = "  ".join(f"{name} {value:.4g}" for name, value in row.items() if "/" in name)
        log.info("epoch %d/%d  %s  %.0f img/s", epoch + 1, self.config.train.epochs, said, self.progress.rate)
        self._save()
        self.progress.skip()
        return evaluation

    def _evaluate(self, epoch: int) -> Evaluation:
        """Judges the raw and, where there are any, the averaged weights; returns what is said of the latter."""
        judged = {"eval": self.model} | ({"eval_ema": self.ema.module} if self.ema is not None else {})
        self._write_state(epoch, phase="evaluating")
        self.last = {}
        for prefix, model in judged.items():
            model.eval()

            def predict(images: Tensor, model: nn.Module = model) -> Tensor:
                with self._autocast():
                    return model(self._images(images))  # type: ignore[no-any-return]

            with torch.no_grad():
                evaluation = self.task.evaluate(predict, self._judged_batches())
            self.last.update({f"{prefix}/{name}": value for name, value in evaluation.metrics.items()})
        return evaluation

    def _judged_batches(self) -> Iterator[tuple[Tensor, ...]]:
        """Every image of the evaluation set exactly once; one that cannot be read is an error, never replaced."""
        seen = 0
        for batch in self.eval_batches.epoch(0):
            self.ledger.refuse(self.task.eval_set, batch)
            seen += len(batch[0])
            yield batch
        if seen != len(self.task.eval_set):  # type: ignore[arg-type]
            raise RunFailed(f"{seen} images were judged, the evaluation set has {len(self.task.eval_set)}")  # type: ignore[arg-type]

    def _summarise(self, evaluation: Evaluation) -> dict[str, Any]:
        from atm.complexity import count

        size = count(self.model, (3, *self.config.data.image_size))
        if evaluation.examples:
            packed = io.BytesIO()
            np.savez_compressed(packed, **evaluation.examples)  # type: ignore[arg-type]
            atomic_file.write(self.folder.path / "examples.npz", packed.getvalue())
        weights.export(get_state_dict(self.ema or self.model), self.folder.path / "weights.safetensors")
        seconds = self._elapsed()
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
            "wall_s": round(seconds, 1),
            "images_per_s": self.progress.rate,
            "device": str(self.device),
            "bad_images": len(self.ledger),
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "notes": self.notes,
        }
        self.folder.write_json("summary.json", summary)
        self.folder.set_state("done", step=self.step, steps=self.steps)
        return summary

    def _restore(self) -> None:
        state = checkpoint.load(self.folder.checkpoints, self.device)
        if state is None:
            self.metrics.cut_after(-1)
            return
        if state["code"] != provenance.code_fingerprint():
            self.notes.append("resumed with other code than it started with")
            log.warning("%s: resumed with other code than it started with", self.folder.id)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        self.step, self.loss_sum, self.seconds = state["step"], state["loss_sum"], state["seconds"]
        self.last, self.notes = state["last"], [*state["notes"], *self.notes]
        self.ledger.restore(state["ledger"])
        self.metrics.cut_after(self.step)

    def _save(self) -> None:
        self._saved = time.monotonic()
        state = {
            "model": self.model.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "loss_sum": self.loss_sum,
            "seconds": self._elapsed(),
            "last": self.last,
            "notes": self.notes,
            "ledger": self.ledger.state(),
            "code": provenance.code_fingerprint(),
        }
        checkpoint.save(self.folder.checkpoints, state, self.step)

    def _write_provenance(self) -> None:
        fingerprint = self.task.train_set.fingerprint() + "-" + self.task.eval_set.fingerprint()  # type: ignore[attr-defined]
        now, before = provenance.collect(fingerprint), self.folder.read_json("provenance.json")
        if before.get("data_fingerprint", fingerprint) != fingerprint:
            raise DataError(f"{self.folder.id}: the data set's files changed since this run started")
        code = before.get("code_fingerprint", now["code_fingerprint"])
        if self.step and code != now["code_fingerprint"]:  # such a run is not averaged with runs of one code
            now["code_fingerprint"] = f"{code}+{now['code_fingerprint']}"
        self.folder.write_json("provenance.json", now)

    def _write_state(self, epoch: int, phase: str = "training") -> None:
        self.folder.set_state(
            "running",
            phase=phase,
            epoch=epoch + 1,
            epochs=self.config.train.epochs,
            step=self.step,
            steps=self.steps,
            images_per_s=self.progress.rate,
            seconds_left=self.progress.left(self.step),
        )

    def _batches(self, dataset: Any, training: bool) -> Batches:
        config = self.config
        return Batches(
            dataset,
            config.train.batch_size,
            config.seed,
            shuffle=training,
            workers=config.data.workers,
            device=self.device,
            repeats=config.augment.repeats if training else 1,
        )

    def _autocast(self) -> AbstractContextManager[Any]:
        precision = self.config.train.precision
        return nullcontext() if precision == "float32" else torch.autocast(self.device.type, getattr(torch, precision))

    def _images(self, images: Tensor) -> Tensor:
        layout = torch.channels_last if self.config.machine.channels_last else torch.contiguous_format
        return images.contiguous(memory_format=layout)

    def _elapsed(self) -> float:
        return self.seconds + time.monotonic() - self._started


@contextmanager
def _outcome(folder: RunFolder) -> Iterator[None]:
    """Leaves every ending in ``state.json`` and ``log.txt``; a traceback goes to the log, one line to the person."""
    try:
        yield
    except Interrupted as error:
        log.info("%s: interrupted by %s, state saved", folder.id, error)
        folder.set_state("interrupted", cause=str(error))
        raise
    except KeyboardInterrupt:
        with suppress(OSError):
            folder.set_state("interrupted", cause="SIGINT")
        raise
    except Exception as error:
        cause = _one_line(error, folder)
        log.debug("%s\n%s", cause, traceback.format_exc())
        with suppress(OSError):
            folder.set_state("failed", cause=cause)
        if isinstance(error, SuiteError):
            raise
        raise RunFailed(cause) from error


def _one_line(error: Exception, folder: RunFolder) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{folder.path}: the disk is full"
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return "out of GPU memory: lower train.batch_size, or use a smaller model"
    first = (str(error).splitlines() or [""])[0]
    return first if isinstance(error, SuiteError) else f"{type(error).__name__}: {first}"


def _prepare_machine(config: Config) -> torch.device:
    machine = config.machine
    if machine.threads:
        torch.set_num_threads(machine.threads)
    if machine.deterministic:
        torch.use_deterministic_algorithms(True)
    name = machine.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RunFailed(f"machine.device={machine.device}: {str(error).splitlines()[0]}") from None
    if config.train.precision != "float32":
        torch.set_float32_matmul_precision("high")  # what autocast leaves in float32 may use tensor cores too
    return device
