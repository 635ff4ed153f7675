"""Submits the missing runs of a plan and exits; runs that are done, queued or running are left alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import atomic_file
from errors import RunFolderError, WriteError
from experiments.data.registry import check_root
from experiments.folder.claim import holder_of, take
from experiments.folder.parent import refuse_unknown
from experiments.folder.run_folder import RunFolder
from run_format import DONE, EXCLUDED, FAILED, MEASURED, RUNNING, UNREADABLE
from sweeps import equal_arms, measured, near_runs, repeat, run_code, snapshot
from sweeps.measured import MeasuredRuns
from sweeps.plan import Plan, PlannedRun
from sweeps.slurm import shared
from sweeps.slurm.batches import JobBatch, deal, executor, submit, unbroken
from sweeps.slurm.cluster import USUAL_ARRAY_SIZE, Cluster, Limits, SlurmError
from sweeps.slurm.job import TrainRun
from sweeps.slurm.resources import Resources
from sweeps.slurm.submissions import FOLDER, Submission, SubmittedRun, find, known
from sweeps.status import describe


@dataclass
class SubmissionOutcome:
    """Run ids by what happened to them in this launch."""

    done: list[str] = field(default_factory=list)
    measured: list[str] = field(default_factory=list)  # collected earlier
    excluded: list[str] = field(default_factory=list)  # left out by a person, and not to be tried again
    again: list[str] = field(default_factory=list)  # ended before, and submitted to be repeated
    remarks: list[str] = field(default_factory=list)  # lines about measured runs
    submitted: dict[str, str] = field(default_factory=dict)  # with their jobs
    left_alone: dict[str, str] = field(default_factory=dict)  # queued or running, with their state
    skipped_failed: list[str] = field(default_factory=list)  # failed earlier and not to be tried again
    unreadable: dict[str, str] = field(default_factory=dict)  # not submitted, with the file that cannot be read
    waiting: dict[str, str] = field(default_factory=dict)  # not submitted: their parents have no job to wait for
    problem: str | None = None  # why not all could be submitted

    @property
    def exit_code(self) -> int:
        return 1 if self.problem or self.skipped_failed or self.unreadable or self.waiting else 0


def launch(
    plan: Plan,
    runs_dir: Path,
    cluster: Cluster,
    max_parallel: int | None = None,
    retry_failed: bool = False,
    other_code: str | None = None,
    say: Callable[[str], None] = print,
    at: str | None = None,
    new_code: bool = False,
    fresh: bool = False,
) -> SubmissionOutcome:
    """Submits every run of the plan that is not finished, queued or running, and returns.

    max_parallel: runs at a time, of those submitted now. other_code: as for ``TrainRun``. at,
    new_code: which code, as ``sweeps.run_code.choose`` takes them. fresh: also runs that are measured already.
    Raises SuiteError for every cause known before anything is submitted. Where Slurm refuses a later batch, the
    submitted ones stay, and the outcome names the problem.
    """
    with _alone(runs_dir):
        submitted = find(runs_dir, plan.distinct(), cluster)
        found = measured.find(plan, runs_dir, at=at, new_code=new_code, other_code=other_code, fresh=fresh)
        outcome, missing, alive = choose(plan, runs_dir, submitted, retry_failed, found)
        about = near_runs.sentences(plan, runs_dir, [run.id for run in missing], ["--slurm"])
        for line in [*outcome.remarks, *equal_arms.sentences(plan), *about]:
            say(line)
        if not missing:
            return outcome
        limits = cluster.limits()
        refuse_unfit(missing, runs_dir, limits)
        code = run_code.choose(plan, missing, runs_dir, at, new_code, other_code)
        if not other_code:
            code.refuse_other_code(runs_dir)
        submission = Submission(runs_dir, plan.sweep)
        waits = _waits(missing, runs_dir)
        batches = deal(missing, code.copies, waits, limits.max_array_size, max_parallel, _prefix(plan, submission))
        with atomic_file.private():
            _try(batches, submission, cluster)
        cluster.cancel([submitted[run.id].id for run in missing if run.id in submitted and submitted[run.id].alive])
        for run_id in outcome.again:
            repeat.set_aside(RunFolder(runs_dir / run_id))
        for run in missing:
            code.freeze(RunFolder(runs_dir / run.id), run.config)
        finished = [run for run in plan.distinct().values() if run.id in outcome.done]
        for line in [*code.describe(), *code.about_done(runs_dir, finished)]:
            say(line)
        run_jobs = {run: newest.id for run, newest in alive.items()}
        with atomic_file.private():
            _hand_over(batches, submission, runs_dir, run_jobs, other_code, outcome, say)
    return outcome


def _hand_over(
    batches: list[JobBatch],
    submission: Submission,
    runs_dir: Path,
    run_jobs: dict[str, str],
    other_code: str | None,
    outcome: SubmissionOutcome,
    say: Callable[[str], None],
) -> None:
    """Submits the batches in order and writes down each job number at once; stops where Slurm refuses."""
    jobs: dict[str, str] = {}
    submission.write(batches, jobs)
    for batch in batches:
        calls = [TrainRun(runs_dir / run, Path.cwd(), other_code) for run in batch.runs]
        try:
            with unbroken():
                number = submit(executor(batch, submission.folder, jobs, run_jobs), calls)
                jobs[batch.name] = number
                submission.write(batches, jobs)
        except (SlurmError, WriteError) as error:
            if not jobs:
                raise
            outcome.problem = str(error)
            return
        for run in batch.runs:
            run_jobs[run] = outcome.submitted[run] = batch.job_of(run, number)
        say(described(batch, number))


def scripts(
    plan: Plan,
    runs_dir: Path,
    cluster: Cluster | None,
    max_parallel: int | None,
    retry_failed: bool,
    found: MeasuredRuns | None = None,
) -> list[tuple[JobBatch, str]]:
    """The batch scripts that ``launch`` would submit; nothing is written. cluster: None where there is no Slurm.

    found: runs that are measured already.
    """
    submitted = find(runs_dir, plan.distinct(), cluster) if cluster else known(runs_dir, plan.distinct())[0]
    _, missing, alive = choose(plan, runs_dir, submitted, retry_failed, found)
    for run in missing:
        if run.config.data.root is None:  # one that is set may be there on the cluster alone
            check_root(run.config)
    limits = cluster.limits() if cluster else None
    if limits:
        refuse_unfit(missing, runs_dir, limits)
    submission = Submission(runs_dir, plan.sweep)
    largest = limits.max_array_size if limits else USUAL_ARRAY_SIZE
    copies = {run.id: runs_dir / snapshot.COPIES / "COPY" for run in missing}
    batches = deal(missing, copies, _waits(missing, runs_dir), largest, max_parallel, _prefix(plan, submission))
    numbers = {batch.name: f"JOB_{batch.name}" for batch in batches}
    run_jobs = {run: newest.id for run, newest in alive.items()}
    run_jobs |= {run: batch.job_of(run, numbers[batch.name]) for batch in batches for run in batch.runs}
    return [(batch, executor(batch, submission.folder, numbers, run_jobs).text(len(batch.runs))) for batch in batches]


def choose(
    plan: Plan,
    runs_dir: Path,
    submitted: Mapping[str, SubmittedRun],
    retry_failed: bool,
    found: MeasuredRuns | None = None,
) -> tuple[SubmissionOutcome, list[PlannedRun], dict[str, SubmittedRun]]:
    """The outcome for runs that are not submitted, the runs to submit, and the live jobs that have a call."""
    alive = {run: newest for run, newest in submitted.items() if newest.alive and newest.has_call}
    outcome = SubmissionOutcome()
    missing: dict[str, PlannedRun] = {}
    found = found or MeasuredRuns()
    rows = {row.run: row for row in describe(plan, runs_dir, submitted, found)}
    for run in plan.distinct().values():
        row = rows[run.id]
        if row.state == DONE and not found.repeats(RunFolder(runs_dir / run.id)):
            outcome.done.append(run.id)
        elif run.id in alive or row.state == RUNNING:
            outcome.left_alone[run.id] = row.state
        elif row.state == FAILED and not retry_failed:
            outcome.skipped_failed.append(run.id)
        elif row.state == UNREADABLE:
            outcome.unreadable[run.id] = row.detail
        elif row.state == EXCLUDED and not retry_failed:
            outcome.excluded.append(run.id)
        elif row.state == MEASURED:
            outcome.measured.append(run.id)
        elif run.parent in outcome.excluded:
            outcome.waiting[run.id] = f"waits for {run.parent}, which is excluded"
        elif run.parent in outcome.unreadable:
            outcome.waiting[run.id] = f"waits for {run.parent}, which cannot be read"
        elif run.parent in outcome.skipped_failed:
            outcome.waiting[run.id] = f"waits for {run.parent}, which failed"
        elif run.parent in outcome.waiting:
            outcome.waiting[run.id] = f"waits for {run.parent}, which waits as well"
        elif run.parent in outcome.left_alone and run.parent not in alive:
            outcome.waiting[run.id] = f"waits for {run.parent}, which is run elsewhere"
        else:
            missing[run.id] = run
            if row.state in (DONE, EXCLUDED):
                outcome.again.append(run.id)
    parents = measured.with_parents(plan, missing, {run_id: row.state for run_id, row in rows.items()})
    outcome.measured = [run_id for run_id in outcome.measured if run_id not in parents]
    outcome.remarks = [*found.sentences({*missing, *parents}, outcome.done), *measured.about_parents(parents)]
    to_submit = [run for run in plan.distinct().values() if run.id in missing or run.id in parents]
    return outcome, to_submit, alive


def refuse_unfit(runs: list[PlannedRun], runs_dir: Path, limits: Limits) -> None:
    """Raises SuiteError for data, resources or folders with which a run would fail."""
    for resources in dict.fromkeys(Resources.of(run.config) for run in runs):
        resources.check(limits)
    for run in runs:
        check_root(run.config)
        if not run.parent:
            refuse_unknown(run.config.init, runs_dir)
    if runs and not runs[0].config.slurm.shared:
        shared.check(runs_dir, "runs_dir", limits)
        if not (runs[0].config.slurm.python or Path(sys.prefix).is_relative_to("/usr")):  # nodes have these packages
            shared.check(Path(sys.prefix), "the Python environment", limits)


def described(batch: JobBatch, number: str) -> str:
    if len(batch.runs) == 1:
        return f"job {number}: {batch.runs[0]}" + (f", after {batch.parents[0]}" if batch.parents else "")
    limit = f", at most {batch.at_once} at a time" if batch.at_once else ""
    return f"job {number}: {len(batch.runs)} runs{limit}"


def _waits(runs: list[PlannedRun], runs_dir: Path) -> dict[str, str]:
    """Runs whose parents are not done yet, with the parents."""
    submitted = {run.id for run in runs}
    return {
        run.id: run.parent
        for run in runs
        if run.parent and (run.parent in submitted or not RunFolder(runs_dir / run.parent).finished())
    }


def _prefix(plan: Plan, submission: Submission) -> str:
    """Of job names, by which the jobs of a submission are found again if its record is incomplete."""
    return f"{plan.sweep}.{submission.id}"


def _try(batches: list[JobBatch], submission: Submission, cluster: Cluster) -> None:
    """Asks Slurm whether it would accept each kind of batch. Raises SlurmError."""
    for resources in dict.fromkeys(batch.resources for batch in batches):
        batch = JobBatch("try", resources, ("try",), submission.folder)
        script = submission.folder / "try.sh"
        atomic_file.write(script, executor(batch, submission.folder, {}, {}).text(1) + "\n")
        try:
            cluster.check(script)
        except SlurmError:
            script.unlink()
            submission.folder.rmdir()
            raise
        script.unlink()


@contextmanager
def _alone(runs_dir: Path) -> Iterator[None]:
    """One launch at a time: two that chose runs at the same time would submit all of them twice."""
    folder = runs_dir / FOLDER
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        with atomic_file.private():
            folder.mkdir(exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"cannot write {folder}: {atomic_file.reason(error)}") from None
    if holder := holder_of(folder):
        raise RunFolderError(f"another launch is submitting into {runs_dir}: {holder}; try again when it has finished")
    claim = take(folder)
    try:
        yield
    finally:
        claim.release()
