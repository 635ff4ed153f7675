"""Asks another program a question, and survives whatever becomes of it."""

from __future__ import annotations

import subprocess

ANSWER_SECONDS = 10.0


def ask(*command: str, seconds: float | None = None) -> tuple[bool, str]:
    """Whether a command worked, and what it said, or its complaint; one that takes too long is ended."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds or ANSWER_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, str(error)
    said, complaint = done.stdout.strip(), done.stderr.strip()
    return (True, said) if done.returncode == 0 else (False, complaint or said or f"exit code {done.returncode}")
