"""One more arm for a sweep: a mixer of one's own in ATM's place, at axial's FLOPs. Never imports torch."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from errors import ConfigError
from experiments.own_mixer import file_of, is_own, name_of


def with_mixer(where: str, sweep: Mapping[str, Any], mixer: str) -> tuple[dict[str, Any], str]:
    """The sweep with that arm, and the arm's name, which is that of the mixer.

    mixer: ``PATH.py:NAME``, or a name that a package registers. Recipes, learning rate and seeds are those of all arms;
    PEG stands in its network only if it needs that. Raises ConfigError where the sweep has an arm of that name.
    """
    arm = name_of(mixer)
    if arm in sweep["arms"]:
        raise ConfigError(f"mixer={mixer}: sweep {where} has an arm {arm!r}; give your mixer another name")
    settings = {"model.mixer": mixer, "model.peg": is_own(mixer) and _needs_peg(mixer), "model.match": "flops"}
    return {**sweep, "arms": {**sweep["arms"], arm: {"label": arm, "downstream": {}, **settings}}}, arm


def _needs_peg(mixer: str) -> bool:
    """Whether the class of that name says ``needs_peg = True``. A file that cannot be read is refused elsewhere."""
    try:
        tree = ast.parse(file_of(mixer).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return False
    return any(
        isinstance(node, ast.ClassDef)
        and node.name == name_of(mixer)
        and any(ast.unparse(line) == "needs_peg = True" for line in node.body)
        for node in tree.body
    )
