"""The price of a sweep: the rate of every distinct set-up times the schedule, beside the hours used. No torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from errors import UnreadableError
from experiments.data.registry import check_root
from experiments.folder.run_folder import RunFolder
from experiments.schema import Config
from pasted_command import same_settings
from sweeps.plan import Plan, PlannedRun
from sweeps.rates import ON_SLURM, PRICES, Measure, Rate, Rates, hardware_here, probe_here, setup_of
from sweeps.slurm import attempts
from sweeps.status import state_of


@dataclass(frozen=True)
class ArmPrice:
    """Of an arm's runs of one task, in device-hours. used and ratio: of the runs that are done, used by estimated."""

    arm: str
    task: str
    runs: int
    each: float
    hours: float
    done: int
    used: float
    ratio: float | None


@dataclass(frozen=True)
class Price:
    """Of a plan, in device-hours: an hour of four GPUs is four. left_hours counts started runs in part."""

    sweep: str
    protocol: str
    hardware: list[str]
    devices: list[int]  # of a run
    arms: list[ArmPrice]
    left: int
    left_hours: float
    ratio: float | None

    @property
    def runs(self) -> int:
        return sum(arm.runs for arm in self.arms)

    @property
    def done(self) -> int:
        return sum(arm.done for arm in self.arms)

    @property
    def hours(self) -> float:
        return sum(arm.hours for arm in self.arms)

    @property
    def used(self) -> float:
        return sum(arm.used for arm in self.arms)

    @property
    def unit(self) -> str:
        return unit_of(self.hardware)

    def line(self) -> str:
        """``21 runs: 1.4 device-hours on 1 x CPU (AMD EPYC, 2 cores); 13 left: 0.9 h``"""
        where = f"{' or '.join(map(str, self.devices))} x {' or '.join(self.hardware)}"
        text = f"{self.runs} runs: {in_hours(self.hours)} {self.unit} on {where}"
        if self.left:
            text += f"; {self.left} left: {in_hours(self.left_hours)} h"
        if self.ratio is not None:
            text += f"; {self.done} done used {in_hours(self.used)} h, {self.ratio:.2f} x the estimate"
        return text

    def table(self) -> list[str]:
        rows = [("arm", "runs", "h per run", "total h", "done", "used h", "used/estimated")]
        several = len({arm.task for arm in self.arms}) > 1
        for arm in self.arms:
            ratio = "" if arm.ratio is None else f"{arm.ratio:.2f}"
            used = in_hours(arm.used) if arm.done else ""
            name = f"{arm.arm}, {arm.task}" if several else arm.arm
            rows.append((name, str(arm.runs), in_hours(arm.each), in_hours(arm.hours), str(arm.done), used, ratio))
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = [
            f"{row[0]:<{widths[0]}}" + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:]))
            for row in rows
        ]
        return [*(line.rstrip() for line in lines), self.line()]

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "runs": self.runs, "hours": self.hours, "used": self.used, "unit": self.unit}


def estimate(
    plan: Plan,
    runs_dir: Path,
    measure: Measure = probe_here,
    hardware: str | None = None,
    fresh: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Price:
    """The price of a plan; set-ups without a rate in ``runs_dir/prices.json`` are measured, each once.

    hardware: the name that rates are kept under, where ``measure`` times other hardware than this machine's. fresh:
    measure known set-ups again. say: called with a line before every probe.
    Raises DataError where the data root is missing, SuiteError where a probe fails; rates measured by then are kept.
    """
    rates = Rates(runs_dir / PRICES)
    missing = rates.missing(list(plan.distinct().values()), hardware, fresh)
    for _, run in missing:
        check_root(run.config)
    for number, (setup, run) in enumerate(missing, 1):
        say(f"measuring {number} of {len(missing)}: {_described(run)}")
        rates.add(setup, measure(run.config))
    price = _price(plan, runs_dir, rates, hardware)
    assert price is not None
    return price


def known(plan: Plan, runs_dir: Path, hardware: str | None = None, collected: Collection[str] = ()) -> Price | None:
    """The price of a plan, None unless all its set-ups have been measured. Measures nothing.

    collected: runs that are not left to do, though they have no finished folder.
    """
    return _price(plan, runs_dir, Rates(runs_dir / PRICES), hardware, collected)


def sentence(plan: Plan, runs_dir: Path, hardware: str | None = None, collected: Collection[str] = ()) -> str:
    """The price in one line, or the command that measures it."""
    price = known(plan, runs_dir, hardware, collected)
    where = ["--slurm"] if hardware == ON_SLURM else []
    return price.line() if price else f"what it will cost: {same_settings('price', plan.given, plan.words, *where)}"


class RunHours(NamedTuple):
    """Device-hours by run id, of those runs of a plan whose set-ups have been measured, and where."""

    hours: dict[str, float]
    hardware: tuple[str, ...]

    @property
    def unit(self) -> str:
        return unit_of(self.hardware)


def hours_by_run(plan: Plan, runs_dir: Path) -> RunHours:
    """On Slurm's nodes or on this machine, whichever more runs have a price for. Measures nothing."""
    rates, runs = Rates(runs_dir / PRICES), plan.distinct()

    def on(hardware: str | None) -> RunHours:
        measured = {run_id: _rate_of(run, rates, hardware) for run_id, run in runs.items()}
        known_rates = {run_id: rate for run_id, rate in measured.items() if rate}
        hours = {run_id: device_hours(runs[run_id].config, rate) for run_id, rate in known_rates.items()}
        return RunHours(hours, tuple(dict.fromkeys(rate.hardware for rate in known_rates.values())))

    return max((on(ON_SLURM), on(None)), key=lambda each: len(each.hours))


def unit_of(hardware: Iterable[str]) -> str:
    return "device-hours" if any(name.startswith("CPU") for name in hardware) else "GPU-hours"


def used(plan: Plan, runs_dir: Path) -> dict[str, float]:
    """Device-hours of the runs of a plan that are done, by run id.

    On Slurm, from the start to the end of every job that was not killed, including work that was lost; elsewhere, of
    training alone.
    """
    spent = {}
    for run_id in plan.distinct():
        folder = RunFolder(runs_dir / run_id)
        with suppress(UnreadableError):
            if summary := folder.finished():
                seconds = max(float(summary.get("wall_s") or 0.0), attempts.seconds(folder))
                spent[run_id] = seconds * int(summary.get("devices") or 1) / 3600
    return spent


def device_hours(config: Config, rate: Rate) -> float:
    """Of one run: training and evaluations, but not start-up, checkpoints and waiting for other devices."""
    train = config.train
    steps = train.total_steps(rate.steps_per_epoch)
    trained = steps * train.batch_size
    evaluations = -(-steps // train.steps_between_evaluations(rate.steps_per_epoch))  # the end is always judged
    # rates are of one device, so this is device-seconds however many devices share the images
    seconds = trained / rate.train_images_per_s + evaluations * rate.eval_images / rate.eval_images_per_s
    return seconds / 3600


def _price(
    plan: Plan, runs_dir: Path, rates: Rates, hardware: str | None, collected: Collection[str] = ()
) -> Price | None:
    """None where the rate of a run is not known."""
    runs = plan.distinct()
    hours: dict[str, float] = {}
    hardware_names: dict[str, None] = {}
    for run_id, run in runs.items():
        rate = _rate_of(run, rates, hardware)
        if rate is None:
            return None
        hours[run_id] = device_hours(run.config, rate)
        hardware_names.setdefault(rate.hardware)
    spent = used(plan, runs_dir)
    by_arm: dict[tuple[str, str], list[str]] = {(run.arm, run.task): [] for run in plan.runs}
    for run in runs.values():
        by_arm[run.arm, run.task].append(run.id)
    order = {arm: place for place, arm in enumerate(plan.labels)}
    arms = [_arm_price(*cell, by_arm[cell], hours, spent) for cell in sorted(by_arm, key=lambda cell: order[cell[0]])]
    left = [run_id for run_id in runs if run_id not in spent and run_id not in collected]
    return Price(
        plan.sweep,
        plan.protocol,
        list(hardware_names),
        sorted({run.config.machine.devices for run in runs.values()}),
        arms,
        len(left),
        sum(hours[run_id] * (1 - state_of(RunFolder(runs_dir / run_id))[2]) for run_id in left),
        _ratio(spent, hours),
    )


def _rate_of(run: PlannedRun, rates: Rates, hardware: str | None) -> Rate | None:
    return rates.find(setup_of(run.config, hardware or hardware_here(run.config)))


def _arm_price(arm: str, task: str, runs: list[str], hours: dict[str, float], spent: dict[str, float]) -> ArmPrice:
    total = sum(hours[run_id] for run_id in runs)
    done = {run_id: spent[run_id] for run_id in runs if run_id in spent}
    each = total / len(runs) if runs else 0.0  # no runs: another arm has the same ones
    return ArmPrice(arm, task, len(runs), each, total, len(done), sum(done.values()), _ratio(done, hours))


def _ratio(spent: dict[str, float], hours: dict[str, float]) -> float | None:
    return sum(spent.values()) / sum(hours[run_id] for run_id in spent) if spent else None


def _described(run: PlannedRun) -> str:
    config = run.config
    height, width = config.data.image_size
    return f"{run.arm}, {config.model.name} at {height} x {width} px, batch {config.train.batch_size}"


def in_hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.1f}" if hours >= 10 else f"{hours:.2g}"
