"""What a run's summary must hold to be its result: one rule for commands that launch and commands that report."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from results.run_folders.numbers import not_finite, whole
from run_format import CONFIG, SHA256, SUMMARY

REQUIRED = ("run", "seed", "protocol", "step", "metrics")  # without these a summary is no result


def problem(summary: Mapping[str, Any], planned: Mapping[str, Any]) -> str:
    """Why a summary is no result of the planned run, whatever its metrics are; empty where it is one.

    planned: what is known of the run, of ``run``, ``seed`` and ``protocol``.
    """
    if missing := [key for key in REQUIRED if summary.get(key) is None]:
        return f"{SUMMARY} lacks {', '.join(missing)}"
    for key, value in planned.items():
        if summary[key] != value:
            return f"{SUMMARY} is of another run: its {key} is {summary[key]!r}, planned was {value!r}"
    if whole(summary["step"]) is None:
        return f"{SUMMARY}: its step is {summary['step']!r}, not a number"
    return "" if isinstance(summary["metrics"], dict) and summary["metrics"] else f"{SUMMARY} holds no metrics"


def broken(summary: Mapping[str, Any]) -> str:
    """Its first metric that is not finite, as a sentence; empty where all are."""
    metric = not_finite(summary.get("metrics"))
    return f"{SUMMARY}: {metric}, not a finite number" if metric else ""


def notes(summary: Mapping[str, Any]) -> list[str]:
    """What a reader of the result should know, e.g. that the run's head began afresh; empty for no summary."""
    listed = summary.get("notes")
    return [note for note in listed if isinstance(note, str)] if isinstance(listed, list) else []


def other_config(summary: Mapping[str, Any], config: bytes) -> str:
    """Whether the config is another one than the run ended with; runs of earlier code did not record which that was."""
    hashes = summary.get(SHA256)
    written = hashes.get(CONFIG) if isinstance(hashes, dict) else None
    own = hashlib.sha256(config).hexdigest()
    return f"{CONFIG} is not the file that the run ended with" if written not in (None, own) else ""
