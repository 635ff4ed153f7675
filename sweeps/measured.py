"""The runs of a plan that were measured already: collected under ``results/measured/``. No torch.

They count as done, also where their folders are gone, but only if the code that a launch would use now computes what
the code computed that measured them; otherwise a table would mix runs of different code.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from errors import UnreadableError
from experiments.config import ROOT
from experiments.folder.fingerprint import run_fingerprint
from experiments.folder.provenance import accepted_codes
from experiments.folder.run_folder import RunFolder
from experiments.origin import PresentData
from results import measured_runs
from results.measured_runs import MeasuredRun
from run_format import CANCELLED, EXCLUDED, FAILED, INTERRUPTED, MEASURED, NOT_RUN, PROVENANCE, REFUSED, UNKNOWN
from sweeps import run_code, snapshot
from sweeps.plan import Plan

if TYPE_CHECKING:
    from sweeps.slurm.submissions import SubmittedRun

State = tuple[str, str, float]  # as of ``status.state_of``
NOTHING = (NOT_RUN, CANCELLED, UNKNOWN)  # states of a run whose folder has nothing
REPLACED = (*NOTHING, INTERRUPTED, FAILED, REFUSED)  # states for which measured stands


@dataclass(frozen=True)
class MeasuredRuns:
    """Runs of a plan that are in measured results, by run id.

    counted: with the measurement that counts as the run's; others: with the labels that have the run of other code or
    data, which of these it is, and the commit of other code; fresh: measured runs are to be trained again.
    """

    counted: Mapping[str, MeasuredRun] = field(default_factory=dict)
    others: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)
    fresh: bool = False

    def state(self, run: str, own: State, submitted: SubmittedRun | None = None) -> State:
        """The state of a run, ``own`` being that of its folder and of its newest Slurm job."""
        measured = self.counted.get(run)
        if measured is None or own[0] not in REPLACED or (submitted and submitted.alive):
            return own
        where = f"in results/measured/{measured.label}"
        if measured.because:  # a folder that has something is of another measurement
            return (EXCLUDED, f"{measured.because} ({where})", 1.0) if own[0] in NOTHING else own
        return own if self.fresh else (MEASURED, where, 1.0)

    def repeats(self, folder: RunFolder) -> bool:
        """Whether a finished run is to be trained again: its measurement is collected, and it was asked for."""
        measured = self.counted.get(folder.id)
        if not self.fresh or measured is None:
            return False
        return str(folder.finished().get("finished", "")) in measured.finished

    def left_alone(self) -> list[str]:
        """Runs that a launch does not train, though they have no finished folder."""
        return [run for run, measured in self.counted.items() if measured.because or not self.fresh]

    def labels(self) -> dict[str, list[str]]:
        """Measured results and the runs in them that count."""
        by_label: dict[str, list[str]] = {}
        for run, measured in self.counted.items():
            by_label.setdefault(measured.label, []).append(run)
        return by_label

    def sentences(self, runs: Collection[str], done: Collection[str] = ()) -> Iterator[str]:
        """Lines for a launch of ``runs``: which it leaves out as they are measured, and which it trains all the same.

        done: the runs that are done and left alone.
        """
        for label, measured in self.labels().items():
            left_out = [run for run in measured if not (run in runs or run in done or self.counted[run].because)]
            if left_out and not self.fresh:
                yield f"{_number(left_out)} measured already, in results/measured/{label}; --fresh trains them again"
        for place in dict.fromkeys(self.others.values()):
            other = [run for run, found in self.others.items() if found == place and run in runs]
            label, what, commit = place
            if other:
                use = f"; --at {commit[:12]} takes that code, so that they count" if commit else ""
                yield f"{_number(other)} in results/measured/{label}, but of other {what}: trained again{use}"
        if self.fresh and done:
            yield f"{_number(done)} done but not collected, so --fresh leaves them alone; collect=… into=LABEL first"


def find(
    plan: Plan,
    runs_dir: Path,
    *,
    at: str | None = None,
    new_code: bool = False,
    other_code: str | None = None,
    fresh: bool = False,
) -> MeasuredRuns:
    """Looks the runs of a plan up in all measured results of the checkout. Writes nothing.

    at, new_code, other_code: the code of the launch, as ``run_code.choose`` takes them.
    """
    runs = plan.distinct()
    found = measured_runs.find(runs.keys())
    if not found:
        return MeasuredRuns(fresh=fresh)
    planned = [runs[run] for run in found]
    with TemporaryDirectory() as copies:  # of a commit; a launch keeps its own
        present = snapshot.take_at(Path(copies), at) if at else ROOT
        if at or other_code:
            chosen = dict.fromkeys(found, present)
        else:
            chosen = run_code.sources(plan, planned, runs_dir, present, new_code)
        codes = {run.id: {run_fingerprint(run.config, chosen[run.id])} for run in planned}
    for run in found:
        folder = RunFolder(runs_dir / run)
        with suppress(UnreadableError):
            if folder.finished():  # its own code, whatever a launch would use
                codes[run] = accepted_codes(folder.read_json(PROVENANCE))
    counted, other, present_data = {}, {}, PresentData()
    for run, measurements in found.items():
        alike = [each for each in measurements if each.code in codes[run]]
        same = [each for each in alike if not present_data.differ(runs[run].config, each.data)]
        if same:
            counted[run] = next((each for each in same if not each.because), same[0])
        else:
            first = measurements[0]
            other[run] = (first.label, "data", "") if alike else (first.label, "code", first.commit)
    return MeasuredRuns(counted, other, fresh)


def with_parents(plan: Plan, runs: Collection[str], states: Mapping[str, str]) -> dict[str, str]:
    """Measured runs that have to be trained again, since a run of ``runs`` starts from their weights → that run."""
    needed: dict[str, str] = {}
    for run in reversed(plan.distinct().values()):  # children first
        if run.parent and (run.id in runs or run.id in needed) and states[run.parent] == MEASURED:
            needed.setdefault(run.parent, run.id)
    return needed


def about_parents(parents: Mapping[str, str]) -> Iterator[str]:
    """Lines about the runs that ``with_parents`` gives."""
    for parent, child in parents.items():
        yield f"{parent} is measured, but its weights are gone: trained again, as {child} starts from them"


def _number(runs: Collection[str]) -> str:
    return f"{len(runs)} {'run is' if len(runs) == 1 else 'runs are'}"
