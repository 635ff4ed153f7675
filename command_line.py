"""Parses a command line by a table of commands and options, and calls the command's function."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NoReturn

import output
from errors import ConfigError, unknown

DESCRIPTION = "Reproduction and ablation suite for Active Token Mixer."


@dataclass(frozen=True)
class Command:
    """A row of the table.

    function: "module:function", called with the NAME of ``command=NAME``, the settings and the parsed options.
    usage: forms of the command and what each does; the text of --help.
    needs: "module:name" or "module" of rooms above the function's own, passed to it as further arguments.
    named: whether a NAME is required.
    settings: whether the further words are key=value settings; if not, the function reads ``options.words``.
    only_shows: whether it may end where nobody reads on; all others train, write or change something, and go on.
    """

    function: str
    usage: dict[str, str]
    needs: tuple[str, ...] = ()
    named: bool = True
    settings: bool = True
    only_shows: bool = False


@dataclass(frozen=True)
class Option:
    """An option, the commands that take it, and the kind of value that follows it, if any."""

    commands: tuple[str, ...]
    says: str
    metavar: str | None = None
    type: Any = str


def positive(text: str) -> int:
    """The type of an option that takes a whole number of at least 1."""
    if not text.lstrip("+-").isdecimal():
        raise argparse.ArgumentTypeError(f"invalid int value: {text!r}")
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 1")
    return int(text)


def dispatch(words: list[str], commands: Mapping[str, Command], options: Mapping[str, Option], keys: str) -> int:
    """Calls the function of the command that ``words`` name and returns its exit code. keys: last part of --help."""
    output.escape_commands()
    parsed = _parse(words, commands, options, keys)
    word, _, name = parsed.words[0].partition("=")
    if word not in commands:
        raise ConfigError(unknown("command", word, commands))
    command = commands[word]
    if command.named and not name:
        raise ConfigError(f"{word}=NAME: which one? `python run.py list` shows them")
    for other in parsed.words[1:]:
        key, equals, _ = other.partition("=")
        if equals and key in commands and key != "experiment":  # doctor, offsets, evaluate take it as a setting
            raise ConfigError(f"{word} and {key} are two commands: give one of them")
    for option, row in options.items():
        if getattr(parsed, option.removeprefix("--").replace("-", "_")) and word not in row.commands:
            takers = " and ".join(f"{taker}=" for taker in row.commands)
            raise ConfigError(f"{option} goes with {takers}, not with {word}")
    if command.only_shows:
        output.escape_unencodable()
    else:
        output.tolerate_loss()
    settings = _load("experiments.config:parse_overrides")(parsed.words[1:]) if command.settings else {}
    code: int = _load(command.function)(name, settings, parsed, *map(_load, command.needs))
    return code


def _parse(
    words: list[str], commands: Mapping[str, Command], options: Mapping[str, Option], keys: str
) -> argparse.Namespace:
    usage = [f"  python run.py {form:<38} {text}" for row in commands.values() for form, text in row.usage.items()]
    parser = _Parser(
        prog="run.py",
        usage="run.py COMMAND [key=value …] [options]",
        description="\n".join([DESCRIPTION, "", "commands:", *usage]),
        epilog=keys,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("words", nargs="*", metavar="key=value", help=argparse.SUPPRESS)
    for name, option in options.items():
        says = f"{option.says} ({', '.join(option.commands)})"
        if option.metavar:
            parser.add_argument(name, type=option.type, metavar=option.metavar, help=says)
        else:
            parser.add_argument(name, action="store_true", help=says)
    parser.add_argument("--json", action="store_true", help="print one JSON document on standard output, nothing else")
    parsed, unrecognised = parser.parse_known_intermixed_args(words)
    if unrecognised:
        raise ConfigError(unknown("option", unrecognised[0], [*options, "--json", "--help"]))
    if not parsed.words:
        raise ConfigError(f"which command? One of {', '.join(commands)}; --help says more")
    return parsed


def _load(path: str) -> Any:
    """The module of a path "module", or the attribute of a path "module:name"."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name) if name else import_module(module)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """argparse would print its usage as well; every refusal of ours is one line."""
        raise ConfigError(message)
