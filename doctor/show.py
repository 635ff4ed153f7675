"""Prints findings for a person or for a program."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import asdict

from doctor.finding import ABSENT, OK, PROBLEM, WARNING, Finding


def show(findings: list[Finding], as_json: bool) -> bool:
    """Prints one line for each finding, or one JSON document. Returns whether there is no problem."""
    verdicts = [finding.verdict for finding in findings]
    ready = PROBLEM not in verdicts
    if as_json:
        print(json.dumps({"checks": [asdict(finding) for finding in findings], "ok": ready}))
        return ready
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # paths may contain what a terminal cannot show
    for finding in findings:
        advice = f"; to do: {finding.advice}" if finding.advice else ""
        print(f"{finding.verdict:<8} {finding.name:<20} {finding.message}{advice}")
    print(", ".join(f"{verdicts.count(v)} {v}" for v in (OK, WARNING, PROBLEM, ABSENT) if v in verdicts))
    return ready
