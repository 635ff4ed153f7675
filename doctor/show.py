"""Findings as a person or a program reads them."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import asdict

from doctor.finding import ABSENT, OK, PROBLEM, WARNING, Finding


def show(findings: list[Finding], as_json: bool) -> bool:
    """Prints a line for each finding, or one document; returns whether there is no problem."""
    verdicts = [finding.verdict for finding in findings]
    fine = PROBLEM not in verdicts
    if as_json:
        print(json.dumps({"checks": [asdict(finding) for finding in findings], "ok": fine}))
        return fine
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path can hold what a terminal cannot show
    for finding in findings:
        advice = f"; to do: {finding.advice}" if finding.advice else ""
        print(f"{finding.verdict:<8} {finding.name:<20} {finding.found}{advice}")
    print(", ".join(f"{verdicts.count(v)} {v}" for v in (OK, WARNING, PROBLEM, ABSENT) if v in verdicts))
    return fine
