"""Checks other programs: Slurm and LaTeX."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from ask_program import ask
from doctor.finding import ABSENT, OK, PROBLEM, WARNING, CheckInputs, Finding, enumeration

QUESTIONS = (
    ("sbatch", "--version"),
    ("scontrol", "show", "config"),
    ("scontrol", "show", "partition", "--oneliner"),
    ("squeue", "--noheader", f"--user={os.geteuid()}", "--format=%i"),
    ("sacct", "--noheader", "--allocations", "--format=JobID"),
)


def slurm(inputs: CheckInputs) -> Iterator[Finding]:
    if not shutil.which("sbatch"):
        yield Finding("slurm", ABSENT, "no sbatch: runs start on this machine", "nothing, unless this is a cluster")
        return
    with ThreadPoolExecutor(len(QUESTIONS)) as pool:  # each waits long for a controller that is down
        answers = list(pool.map(lambda question: ask(*question), QUESTIONS))
    silent = {program: answer for (program, *_), (succeeded, answer) in zip(QUESTIONS, answers) if not succeeded}
    complaints = "; ".join(f"{program} does not answer: {complaint}" for program, complaint in silent.items())
    if silent.keys() - {"sacct"}:
        advice = "ask the cluster's administrators, or use a login node; runs on this machine do not need Slurm"
        yield Finding("slurm", PROBLEM, complaints, advice)
        return
    version, config, partitions, jobs, _ = (answer for _, answer in answers)
    names = re.findall(r"^PartitionName=(\S+)", partitions, re.MULTILINE)
    largest = "".join(re.findall(r"^MaxArraySize\s*=\s*(\d+)", config, re.MULTILINE)) or "unknown"
    message = (
        f"{version}; partitions{enumeration(names)}; MaxArraySize {largest}; jobs of yours: {len(jobs.splitlines())}"
    )
    advice = "nothing: the fate of a job is then read from its run folder alone"
    yield Finding("slurm", WARNING if silent else OK, f"{message}; {complaints or 'sacct answers'}", advice)


def latex(inputs: CheckInputs) -> Iterator[Finding]:
    path = shutil.which("pdflatex") or shutil.which("tectonic")
    advice = "apt-get install texlive-latex-extra, only to compile a report's table_alone.tex here"
    yield Finding("latex", OK if path else ABSENT, path or "neither pdflatex nor tectonic", advice)
