"""A token mixer of one's own in a file, ``model.mixer=PATH.py:NAME``. Must not import torch.

The file is a part of what the run is: the hash of its source, without comments and docstrings, is a setting that is
frozen with the run, and the path is none. So an edited file makes other runs, and a run is never trained with another
version of the file than the one that it was planned with.
"""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

from errors import ConfigError, unknown
from experiments.folder.normal_form import normal_form
from experiments.paths import FILE_AND_NAME, expanded
from experiments.schema import Model


def is_own(mixer: object) -> bool:
    """Whether a value of ``model.mixer`` names a file."""
    return isinstance(mixer, str) and FILE_AND_NAME in mixer


def file_of(mixer: str) -> Path:
    return expanded("model.mixer", mixer.rpartition(":")[0])


def name_of(mixer: str) -> str:
    """What the mixer is called, wherever its file lies: NAME."""
    return mixer.rpartition(":")[2]


def complete_own_mixer(model: Model) -> None:
    """Sets ``model.mixer_source`` to the hash of the file. Raises ConfigError where the file is not there, has nothing
    of that name, or is not the one that the run was planned with."""
    assert model.mixer is not None
    path, name = file_of(model.mixer), name_of(model.mixer)
    try:
        tree = ast.parse(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"model.mixer={model.mixer}: cannot read the file: {error.strerror}") from None
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"model.mixer={model.mixer}: not valid Python: {error}") from None
    names = list(_top_level(tree))
    if name not in names:
        raise ConfigError(f"model.mixer={model.mixer}: {unknown(f'name in {path.name}', name, names)}")
    source = source_hash(path)
    if model.mixer_source not in (None, source):
        raise ConfigError(
            f"model.mixer={model.mixer}: {path.name} was edited: it is {source} now, and the run was planned with "
            f"{model.mixer_source}; plan it again, or restore the file"
        )
    model.mixer_source = source


def source_hash(path: Path) -> str:
    """16 hexadecimal digits; equal for sources that differ in comments, docstrings and formatting only."""
    return hashlib.sha256(normal_form(path).encode()).hexdigest()[:16]


def _top_level(tree: ast.Module) -> list[str]:
    names = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return names
