"""How the states of a sweep's runs are shown: one line per run, or a table that refreshes itself."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import output
from run_format import (
    CANCELLED,
    DONE,
    EXCLUDED,
    FAILED,
    INTERRUPTED,
    MEASURED,
    QUEUED,
    REFUSED,
    RUNNING,
    UNKNOWN,
)
from sweeps.launches import Launch
from sweeps.plan import Plan
from sweeps.progress import LOG_SECONDS, LaunchProgress
from sweeps.status import RunStatus

if TYPE_CHECKING:
    from rich.table import Table

Look = Callable[[], tuple[Sequence[RunStatus], str | None]]  # the states, and a complaint where Slurm does not answer
COLOURS = {DONE: "green", RUNNING: "cyan", FAILED: "red", REFUSED: "red", CANCELLED: "yellow"}
COLOURS |= {INTERRUPTED: "yellow", UNKNOWN: "magenta", MEASURED: "green", EXCLUDED: "yellow"}


def lines(rows: Sequence[RunStatus]) -> list[str]:
    """One line per run; the task is named where the rows have more than one."""
    several = _has_several_tasks(rows)
    arm = max([12, *(len(row.arm) for row in rows)])  # characters
    return [
        f"{row.arm:<{arm}} {f'{row.task:<16} ' if several else ''}seed {row.seed}  {row.run:<44} {row.state:<11} "
        f"{_share(row):>5}  {row.detail}".rstrip()
        for row in rows
    ]


def _has_several_tasks(rows: Sequence[RunStatus]) -> bool:
    return len({row.task for row in rows}) > 1


def summary(plan: Plan, rows: Sequence[RunStatus], runs_dir: Path) -> str:
    """``necks (smoke, scenes): 27 runs in 36 rows: 2 done, 25 not run; in runs``: a run that arms share counts once."""
    runs = {row.run: row.state for row in rows}
    counted = ", ".join(f"{number} {state}" for state, number in Counter(runs.values()).items())
    shared = f" in {len(rows)} rows" if len(rows) > len(runs) else ""
    return f"{plan.sweep} ({plan.protocol}, {plan.experiment}): {len(runs)} runs{shared}: {counted}; in {runs_dir}"


def watch(
    plan: Plan, runs_dir: Path, look: Look, seconds: float, launching: Callable[[], bool] = lambda: False
) -> Sequence[RunStatus]:
    """Shows the states every ``seconds`` until nothing is queued, running or being launched; returns the last states.

    Ending it changes no run. It continues while Slurm does not answer, since the queue is not known then.
    """
    if not sys.stdout.isatty():
        return _follow(plan, runs_dir, look, seconds, launching)
    from rich.live import Live

    rows, complaint = look()
    table = _table(plan, rows, runs_dir, complaint)
    with Live(table, console=output.console(), auto_refresh=False, vertical_overflow="visible") as live:
        while _busy(rows) or complaint or launching():
            time.sleep(seconds)
            rows, complaint = look()
            live.update(_table(plan, rows, runs_dir, complaint), refresh=True)
    return rows


def _follow(
    plan: Plan, runs_dir: Path, look: Look, seconds: float, launching: Callable[[], bool]
) -> Sequence[RunStatus]:
    """For a pipe or a file: the line of a run whenever its state has changed, and the summary at the end."""
    before: dict[tuple[str, str, int], str] = {}
    while True:
        rows, complaint = look()
        for row, line in zip(rows, lines(rows)):
            cell = (row.arm, row.task, row.seed)
            if before.get(cell) != row.state:
                print(line, flush=True)
                before[cell] = row.state
        if not _busy(rows) and not complaint and not launching():
            print(summary(plan, rows, runs_dir))
            return rows
        time.sleep(seconds)


@contextmanager
def live() -> Iterator[tuple[Callable[[str], None], Callable[[Launch], LaunchProgress]]]:
    """How a launch speaks: lines, and its progress, on a terminal below them, in a file once a minute among them."""
    if not sys.stdout.isatty():
        yield print_line, logged_progress
        return
    from rich.text import Text

    console = output.console()
    with console.status("starting") as display:

        def progress(launch: Launch) -> LaunchProgress:
            return LaunchProgress(launch, lambda lines: display.update(Text("\n".join(lines))))

        yield lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True), progress


def print_line(line: str) -> None:
    print(line, flush=True)


def logged_progress(launch: Launch) -> LaunchProgress:
    """The progress of a launch whose output is a file or a pipe."""
    return LaunchProgress(launch, lambda lines: print_line(lines[0]), LOG_SECONDS)


def _busy(rows: Sequence[RunStatus]) -> bool:
    return any(row.state in (RUNNING, QUEUED) for row in rows)


def _share(row: RunStatus) -> str:
    return f"{100 * row.share:3.0f} %" if 0 < row.share < 1 else ""


def _table(plan: Plan, rows: Sequence[RunStatus], runs_dir: Path, complaint: str | None) -> Table:
    from rich.markup import escape
    from rich.table import Table

    caption = escape(summary(plan, rows, runs_dir)) + (f"\n[red]{escape(complaint)}[/]" if complaint else "")
    table = Table(box=None, pad_edge=False, caption=caption, caption_justify="left")
    tasks = ["task"] if _has_several_tasks(rows) else []
    for column in ("arm", *tasks, "seed", "run", "state", "", "detail"):
        table.add_column(column, no_wrap=column in ("seed", ""), overflow="fold")
    for row in rows:
        state = f"[{COLOURS.get(row.state, 'default')}]{escape(row.state)}[/]"
        cell = [escape(row.arm), *([escape(row.task)] if tasks else []), str(row.seed)]
        table.add_row(*cell, escape(row.run), state, _share(row), escape(row.detail))
    return table
