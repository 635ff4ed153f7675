"""YAML of every file and word that is read: one dialect, YAML 1.2's core schema, read strictly. No torch.

``on``, ``12:30``, ``2024_11_26`` and dates are text, ``1e-3`` is a number; keys are text as they are written, and each
may stand once.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

import untrusted_files
from errors import ConfigError, UnreadableError

try:  # the same in C: a config is read or written ten times as fast
    from yaml import CSafeDumper as SafeDumper
    from yaml import CSafeLoader as SafeLoader
except ImportError:
    from yaml import SafeDumper, SafeLoader  # type: ignore[assignment]

SCALARS = {  # tag → its form, and the characters that it can begin with
    "null": (r"~|null|Null|NULL|", ("~", "n", "N", "")),
    "bool": (r"true|True|TRUE|false|False|FALSE", tuple("tTfF")),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", tuple("-+0123456789")),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        tuple("-+.0123456789"),
    ),
}


NAME = re.compile(r"[A-Za-z0-9_-]+")  # of a recipe, sweep or report


class Loader(SafeLoader):
    """names: keys whose values are names, so text as they are written; null is none."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012  # none of YAML 1.1's
    names: Collection[str] = ()

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        mapping: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be text", key_node.start_mark)
            key = key_node.value
            if key in mapping:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} stands twice", key_node.start_mark)
            is_name = (
                key in self.names and isinstance(value_node, yaml.ScalarNode) and not value_node.tag.endswith(":null")
            )
            mapping[key] = value_node.value if is_name else self.construct_object(value_node, deep=True)
        return mapping

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        text = str(node.value)
        return int(text, 0) if text.startswith(("0o", "0x")) else int(text)

    def construct_float(self, node: yaml.ScalarNode) -> float:
        return float(str(node.value).lower().replace(".inf", "inf").replace(".nan", "nan"))

    def construct_map(self, node: yaml.MappingNode) -> Any:
        content: dict[Hashable, Any] = {}
        yield content
        content.update(self.construct_mapping(node))


class Dumper(SafeDumper):
    """Quotes the text that ``Loader`` would read as something else."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012


for _tag, (_form, _first) in SCALARS.items():
    for _kind in (Loader, Dumper):
        _kind.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_form})$"), list(_first))
Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_integer)
Loader.add_constructor("tag:yaml.org,2002:float", Loader.construct_float)
Loader.add_constructor("tag:yaml.org,2002:map", Loader.construct_map)


def write_yaml(content: Mapping[str, Any]) -> str:
    return str(yaml.dump(dict(content), Dumper=Dumper, sort_keys=False))


def read_yaml(path: Path, names: Collection[str] = (), *, may_be_empty: bool = False) -> dict[str, Any]:
    """The keys and values of a file. names: keys whose values are text as they are written.

    Raises ConfigError, with the line where it is not valid YAML.
    """
    try:
        content = load(untrusted_files.content(path), path.name, names)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except UnreadableError as error:
        raise ConfigError(str(error)) from None
    if content is None and may_be_empty:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path.name}: expected keys and values")
    return content


def own_file(kind: str, word: str, taken: Collection[str]) -> Path | None:
    """The user's own file that a word ending in ``.yaml`` names, from anywhere; None for any other word, a name.

    taken: the suite's own names of this kind. Raises ConfigError where there is no such file, or where its name without
    the ending, by which its runs and reports are called, is taken or has characters that names do not have.
    """
    if called(word) == word:
        return None
    try:
        path = Path.cwd() / Path(word).expanduser()
    except RuntimeError:
        raise ConfigError(f"{kind}={word}: no user is called {word.partition('/')[0]}") from None
    if not path.is_file():
        near = get_close_matches(path.stem, taken, n=1, cutoff=0.8)
        raise ConfigError(f"{kind}={word}: no such file" + (f"; did you mean {kind}={near[0]}?" if near else ""))
    if not NAME.fullmatch(path.stem):
        raise ConfigError(f"{kind}={word}: runs are called by the file's name: letters, digits, '_' and '-' only")
    if path.stem in taken:
        raise ConfigError(f"{kind}={word}: the suite has its own {kind}={path.stem}: give the file another name")
    return path


def called(word: str) -> str:
    """The name of a recipe, sweep or report, also of the user's own, which is given by its path."""
    return Path(word).stem if word.endswith(".yaml") else word


def texts(text: str, where: str) -> Any:
    """What a text holds, its scalars as they are written: lists of names. Raises ConfigError."""
    try:
        return yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506  # makes text, lists and mappings only
    except yaml.YAMLError:
        raise ConfigError(f"{where}: not a list such as [a,b]") from None


def load(text: str | bytes, where: str, names: Collection[str] = ()) -> Any:
    """What a text holds. where: what it is called in messages. Raises ConfigError."""
    try:
        decoded = text if isinstance(text, str) else text.decode("utf-8")
        loader = Loader(decoded)
        loader.names = names
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ConfigError(f"{where}{line}: not valid YAML: {problem}") from None


def dotted(nested: Any, prefix: str = "") -> dict[str, Any]:
    """Nested keys and values as one level, with keys such as ``train.lr``; whatever the keys are."""
    if not isinstance(nested, Mapping):
        return {prefix: nested} if prefix else {}
    parts = (dotted(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in nested.items())
    return {key: value for part in parts for key, value in part.items()}
