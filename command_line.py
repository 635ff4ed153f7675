"""Parses a command line by a table of commands and options, and calls the command's function."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NoReturn

import output
import pasted_command
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
    about: "module:function" from a NAME to lines about it, for ``command=NAME --help``.
    names: "module:function" to the NAMEs that there are, for the completion of command lines.
    """

    function: str
    usage: dict[str, str]
    needs: tuple[str, ...] = ()
    named: bool = True
    settings: bool = True
    only_shows: bool = False
    about: str = ""
    names: str = ""


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


@dataclass(frozen=True)
class Tables:
    """What a command line can have. keys: last part of --help; habits: options of other programs → what to do here."""

    commands: Mapping[str, Command]
    options: Mapping[str, Option]
    keys: str
    habits: Mapping[str, str]


def dispatch(words: list[str], tables: Tables) -> int:
    """Calls the function of the command that ``words`` name and returns its exit code."""
    output.escape_commands()
    commands = tables.commands
    if {"-h", "--help"} & set(words) and (named := [each for each in words if each.partition("=")[0] in commands]):
        print(*_help(named[0], tables), sep="\n")
        return 0
    parsed = _parse(words, tables)
    if parsed.version:
        print(_load("experiments.folder.provenance:version")())
        return 0
    if not parsed.words:
        raise ConfigError(f"which command? One of {', '.join(commands)}; --help says more")
    word, _, name = parsed.words[0].partition("=")
    if word not in commands:
        raise ConfigError(unknown("command", word, commands))
    command = commands[word]
    if command.named and not name:
        given = parsed.words[1] if len(parsed.words) > 1 and "=" not in parsed.words[1] else ""
        which = f"write {word}={given}" if given else f"which one? `{pasted_command.command('list')}` shows them"
        raise ConfigError(f"{word}=NAME: {which}")
    for other in parsed.words[1:]:
        key, equals, _ = other.partition("=")
        if equals and key in commands and key != "experiment":  # doctor, offsets, evaluate take it as a setting
            raise ConfigError(f"{word} and {key} are two commands: give one of them")
    for option, row in tables.options.items():
        if getattr(parsed, option.removeprefix("--").replace("-", "_")) and word not in row.commands:
            *others, last = (taker + "=" * tables.commands[taker].named for taker in row.commands)
            takers = f"{', '.join(others)} and {last}" if others else last
            raise ConfigError(f"{option} goes with {takers}, not with {word}")
    if command.only_shows:
        output.escape_unencodable()
    else:
        output.tolerate_loss()
    settings = _load("experiments.config:parse_overrides")(parsed.words[1:]) if command.settings else {}
    code: int = _load(command.function)(name, settings, parsed, *map(_load, command.needs))
    return code


def _parse(words: list[str], tables: Tables) -> argparse.Namespace:
    parsed, unrecognised = _parser(tables).parse_known_intermixed_args(words)
    if unrecognised:
        raise ConfigError(_unknown_option(unrecognised[0], words, tables))
    return parsed


def _unknown_option(option: str, words: list[str], tables: Tables) -> str:
    """The message for an option that there is not: what to do in place of it, its setting here, or the nearest."""
    name, _, value = option.partition("=")
    if hint := tables.habits.get(name):
        return f"there is no option {name}: {hint}"
    after = words[words.index(option) + 1 :][:1]
    if not value and after and not after[0].startswith("-") and "=" not in after[0]:
        value = after[0]
    plain = name.lstrip("-")
    if keys := [plain] if plain in tables.commands else _load("experiments.config:meant_by")(plain):
        written = " or ".join(f"{key}={value or '…'}" for key in keys[:3])
        return f"there is no option {name}: settings have no dashes, write {written}"
    return unknown("option", name, [*tables.options, "--json", "--version", "--help"])


def _help(word: str, tables: Tables) -> list[str]:
    """Lines about one command and, where it is named, about what it is to be called with."""
    command, _, name = word.partition("=")
    row = tables.commands[command]
    lines = [f"  {pasted_command.command()} {form:<38} {text}" for form, text in row.usage.items()]
    for option, each in tables.options.items():
        if command in each.commands:
            lines.append(f"  {f'{option} {each.metavar}' if each.metavar else option:<24} {each.says}")
    return [*lines, "", *_load(row.about)(name)] if name and row.about else lines


def complete(tables: Tables) -> None:
    """Answers a shell that completes a command line, by argcomplete, which ends the process."""
    import argcomplete  # type: ignore[import-not-found, unused-ignore]

    def candidates(prefix: str, **_: Any) -> list[str]:
        key, equals, _value = prefix.partition("=")
        if not equals:
            return [f"{each}=" for each in (*tables.commands, *_load("experiments.config:every_key")())]
        if row := tables.commands.get(key):
            values = _load(row.names)() if row.names else []
        else:
            values = _load("experiments.config:choices_of")(key)
        return [f"{key}={value}" for value in values]

    argcomplete.autocomplete(_parser(tables, candidates), append_space=False)


def _parser(tables: Tables, completer: Callable[..., list[str]] | None = None) -> argparse.ArgumentParser:
    """completer: of the words that are no options, as argcomplete calls it."""
    commands = tables.commands.values()
    usage = [f"  python run.py {form:<38} {text}" for row in commands for form, text in row.usage.items()]
    parser = _Parser(
        prog="run.py",
        usage="run.py COMMAND [key=value …] [options]",
        description="\n".join([DESCRIPTION, "", "commands:", *usage]),
        epilog=tables.keys,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    given = parser.add_argument("words", nargs="*", metavar="key=value", help=argparse.SUPPRESS)
    given.completer = completer  # type: ignore[attr-defined]
    for name, option in tables.options.items():
        says = f"{option.says} ({', '.join(option.commands)})"
        if option.metavar:
            parser.add_argument(name, type=option.type, metavar=option.metavar, help=says)
        else:
            parser.add_argument(name, action="store_true", help=says)
    parser.add_argument("--json", action="store_true", help="print one JSON document on standard output, nothing else")
    parser.add_argument("--version", action="store_true", help="print the version and the commit")
    return parser


def _load(path: str) -> Any:
    """The module of a path "module", or the attribute of a path "module:name"."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name) if name else import_module(module)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """argparse would print its usage as well; every refusal of ours is one line."""
        raise ConfigError(message)
