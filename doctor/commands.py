"""The command ``doctor``."""

from __future__ import annotations

import argparse
from typing import Any

from doctor.examination import examine
from doctor.show import show
from errors import ConfigError


def doctor(name: str, settings: dict[str, Any], options: argparse.Namespace) -> int:
    """Checks whether this machine is ready and says how to correct problems. Changes nothing.

    It parses the words of ``options`` itself, because the packages that parse settings may be missing.
    """
    if name:
        raise ConfigError(f"doctor takes no name; doctor experiment={name} checks what that run needs")
    if options.slurm:
        from doctor.on_a_node import examine_on_a_node

        return examine_on_a_node(options.words[1:], as_json=options.json)
    return 0 if show(examine(options.words[1:]), options.json) else 1
