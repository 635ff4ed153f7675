"""The command ``doctor``."""

from __future__ import annotations

import argparse
from typing import Any

from doctor.examination import examine
from doctor.show import show
from errors import ConfigError


def doctor(name: str, given: dict[str, Any], options: argparse.Namespace) -> int:
    """Checks whether this machine is ready and says what to do where it is not. Changes nothing.

    It reads the settings from ``options`` by itself: the packages that parse them may be what is missing.
    """
    if name:
        raise ConfigError(f"doctor takes no name; doctor experiment={name} checks what that run needs")
    return 0 if show(examine(options.words[1:]), options.json) else 1
