"""Runs another program for its output and tolerates every failure of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping

ANSWER_SECONDS = 10.0


def ask(*command: str, seconds: float | None = None, environment: Mapping[str, str] | None = None) -> tuple[bool, str]:
    """Whether a command succeeded, and its output, or its error message in one line.

    seconds: time after which the command is ended. environment: replaces the one of this process.
    """
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds or ANSWER_SECONDS,
            env=environment or os.environ,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, str(error)
    if done.returncode == 0:
        return True, done.stdout.strip()
    lines = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
    return False, " ".join([line.strip() for line in lines if "fatal:" in line] or map(str.strip, lines))
