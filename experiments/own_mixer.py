"""A token mixer of one's own, in a file (``model.mixer=PATH.py:NAME``) or in an installed package. No torch.

Its source is a part of what the run is: the hash of it, without comments and docstrings, is a setting that is frozen
with the run, and its path is none. So an edited source makes other runs, and a run is never trained with another
version than the one that it was planned with. Other runs do not depend on it.
"""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

from errors import ConfigError, unknown
from experiments.folder.normal_form import normal_form
from experiments.paths import FILE_AND_NAME, expanded
from experiments.plugin import module_file, plugin_module
from experiments.schema import MIXERS, Model


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
    _freeze(model, path)


def complete_installed_mixer(model: Model) -> None:
    """The same for the module of an installed package; nothing for a mixer of the suite. Raises ConfigError."""
    if (module := _installed(model)) is not None:
        _freeze(model, module_file(module))


def refuse_other_version(model: Model) -> None:
    """Raises ConfigError where the mixer of an installed package is not the one that the run was planned with."""
    if model.mixer_source is not None and not is_own(model.mixer):
        complete_installed_mixer(model)


def is_installed(model: Model) -> bool:
    """Whether the mixer is one that an installed package registers."""
    return _installed(model) is not None


def _installed(model: Model) -> str | None:
    return None if model.mixer is None or model.mixer in MIXERS else plugin_module("atm.mixers", model.mixer)


def _freeze(model: Model, path: Path) -> None:
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
