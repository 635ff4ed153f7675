"""``python -m sweeps.probe CONFIG.yaml OUT.json`` times the set-up of a frozen run: the rates that price a sweep.

The training loop itself trains and evaluates for some seconds on the run's own data, in a temporary folder. One device
does its share of every batch; waiting for other devices, and sharing a disk or a CPU with them, is not measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import atomic_file
from errors import SuiteError
from experiments.config import from_dict, read_yaml
from experiments.folder import provenance
from experiments.folder.run_folder import RunFolder
from experiments.interrupts import Interrupted, Interrupts
from experiments.schema import Config

if TYPE_CHECKING:
    import torch

    from experiments.training.loop import Training

WARM_UP = 3  # units of work before timing starts, or as many as the loader prefetches
ROUNDS = 30  # the rate is their median


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m sweeps.probe", description=__doc__)
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml", help="as a run folder holds it")
    parser.add_argument("out", type=Path, metavar="OUT.json")
    parser.add_argument("--seconds", type=float, default=20.0, help="at most, for training and for judging each")
    options = parser.parse_args(words)
    try:
        rate = probe(from_dict(read_yaml(options.config)), options.seconds)
        atomic_file.write(options.out, json.dumps(rate, indent=1) + "\n")
    except Interrupted as interruption:
        return interruption.exit_code
    except SuiteError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def probe(config: Config, seconds: float) -> dict[str, Any]:
    """Images per second and device, in training and in evaluation (of raw and averaged weights), and their numbers.

    seconds: limit on timing the training, and again the evaluation; a first step that takes longer is completed.
    Raises SuiteError for every cause that would keep the run from starting, Interrupted when asked to stop.
    """
    from experiments.training.devices import Alone
    from experiments.training.loop import Training
    from experiments.training.outcome import one_line

    config = replace(config, init=None)  # weights do not change the speed, and the parent may not be trained yet
    group = Alone(config.machine.devices)
    # a signal that comes while the folder is being made is heard, too
    with Interrupts() as interrupts, TemporaryDirectory(prefix="atm-probe-") as temporary:
        folder = RunFolder(Path(temporary))
        try:
            training = Training(config, folder, group, [], interrupts, bar=False)
            try:
                return _time(training, seconds)
            finally:
                training.close()
        except Interrupted:
            raise
        except Exception as error:
            raise one_line(error, folder, group) from error


def _time(training: Training, seconds: float) -> dict[str, Any]:
    # each loader process delivers a batch and then waits, so only a whole round shows how fast they are
    each = max(1, training.config.data.workers)
    train_rate, steps = pace(_train(training), each, seconds)
    eval_rate, _ = pace(_judge(training), each, seconds)
    return {
        "hardware": _hardware(training.device),
        "train_images_per_s": train_rate,
        "eval_images_per_s": eval_rate,
        "steps_per_epoch": training.timetable.steps_per_epoch,
        "eval_images": len(training.task.eval_set),  # type: ignore[arg-type]
        "steps_timed": steps,
    }


def pace(work: Iterator[float], each: int, seconds: float) -> tuple[float, int]:
    """(images per second, units timed) of endless ``work`` that yields the number of images after each unit.

    The rate is the median over rounds of ``each`` units. The first unit (compilation, caches) has no time limit; the
    rest of the warm-up is limited to half of ``seconds``, and all together to ``seconds``. At least one unit is timed.
    """
    next(work)
    started = time.monotonic()
    for _ in range(max(WARM_UP, 2 * each) - 1):
        if time.monotonic() - started < seconds / 2:
            next(work)
    units: list[tuple[float, float]] = []
    now = time.monotonic()
    while not units or (len(units) < ROUNDS * each and now - started < seconds):
        images, before = next(work), now
        now = time.monotonic()
        units.append((images, now - before))
    whole = len(units) // each * each or len(units)
    rounds = [units[first : first + each] for first in range(0, whole, each)]
    return median(sum(images for images, _ in r) / sum(taken for _, taken in r) for r in rounds), whole


def _train(training: Training) -> Iterator[float]:
    for _ in training.train_steps(0, sys.maxsize):
        _stop_if_asked(training)
        yield training.config.train.batch_size / training.group.size


def _judge(training: Training) -> Iterator[float]:
    while len(training.task.eval_set):  # type: ignore[arg-type]
        for images in training.evaluator.judge(training.learner.judged, {}):
            _stop_if_asked(training)
            yield images


def _stop_if_asked(training: Training) -> None:
    if training.interrupts.received:
        raise Interrupted(training.interrupts.received)


def _hardware(device: torch.device) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else provenance.processor()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
