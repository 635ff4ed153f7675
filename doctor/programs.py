"""Other programs: Slurm, LaTeX."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from ask_program import ask
from doctor.finding import ABSENT, OK, PROBLEM, WARNING, Asked, Finding, listed

QUESTIONS = (
    ("sbatch", "--version"),
    ("scontrol", "show", "config"),
    ("scontrol", "show", "partition", "--oneliner"),
    ("squeue", "--noheader", f"--user={os.geteuid()}", "--format=%i"),
    ("sacct", "--noheader", "--allocations", "--format=JobID"),
)


def slurm(asked: Asked) -> Iterator[Finding]:
    if not shutil.which("sbatch"):
        yield Finding("slurm", ABSENT, "no sbatch: runs start on this machine", "nothing, unless this is a cluster")
        return
    with ThreadPoolExecutor(len(QUESTIONS)) as pool:  # a controller that is away takes its time over each
        answers = list(pool.map(lambda question: ask(*question), QUESTIONS))
    silent = {program: said for (program, *_), (worked, said) in zip(QUESTIONS, answers) if not worked}
    complaints = "; ".join(f"{program} does not answer: {said}" for program, said in silent.items())
    if silent.keys() - {"sacct"}:
        advice = "ask whoever runs the cluster, or go to one of its login nodes; runs on this machine need none"
        yield Finding("slurm", PROBLEM, complaints, advice)
        return
    version, config, partitions, jobs, _ = (said for _, said in answers)
    names = re.findall(r"^PartitionName=(\S+)", partitions, re.MULTILINE)
    largest = "".join(re.findall(r"^MaxArraySize\s*=\s*(\d+)", config, re.MULTILINE)) or "unknown"
    found = f"{version}; partitions{listed(names)}; MaxArraySize {largest}; jobs of yours: {len(jobs.splitlines())}"
    advice = "nothing: what became of a job is then read from its run folder alone"
    yield Finding("slurm", WARNING if silent else OK, f"{found}; {complaints or 'sacct answers'}", advice)


def latex(asked: Asked) -> Iterator[Finding]:
    path = shutil.which("pdflatex") or shutil.which("tectonic")
    advice = "apt-get install texlive-latex-extra, only to compile a report's table_alone.tex here"
    yield Finding("latex", OK if path else ABSENT, path or "neither pdflatex nor tectonic", advice)
