"""Sources in a form that does not change with comments, docstrings, formatting, or the version of Python.

It imports the standard library only, so that every interpreter can be asked for it.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any


def normal_form(path: Path) -> str:
    """A text that is equal for two sources which differ in comments, docstrings and formatting only.

    A source that is not Python, or not valid Python, keeps its text, without C++ comments.
    """
    content = path.read_bytes()
    if path.suffix == ".py":
        try:
            return json.dumps(_serialised(ast.parse(content)))
        except SyntaxError:
            pass
    return _without_comments(content.decode("utf-8", "replace"))


def _serialised(node: Any) -> Any:
    """A syntax tree as nested lists, without docstrings, and without fields that are empty.

    Versions of Python differ in the empty fields that they have, and in how they cut the text between the expressions
    of an f-string into pieces. ``ast.dump`` and ``ast.unparse`` show both differences.
    """
    if isinstance(node, list):
        return [_serialised(part) for part in node if not _is_docstring(part)]
    if not isinstance(node, ast.AST):
        return ascii(node)  # unlike repr, it does not depend on the version of Unicode
    fields = {name: _serialised(value) for name, value in ast.iter_fields(node) if name not in ("ctx", "kind")}
    if isinstance(node, ast.JoinedStr):
        fields["values"] = _joined(node.values)
    return [type(node).__name__, {name: value for name, value in fields.items() if value not in ("None", [])}]


def _is_docstring(node: Any) -> bool:
    """Whether a statement is nothing but a text."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _joined(parts: list[ast.expr]) -> list[Any]:
    """The parts of an f-string, neighbouring texts made one."""
    merged: list[Any] = []
    text = ""
    for part in parts:
        if isinstance(part, ast.Constant):
            text += str(part.value)
            continue
        merged += [ascii(text)] * bool(text) + [_serialised(part)]
        text = ""
    return merged + [ascii(text)] * bool(text)


def _without_comments(text: str) -> str:
    """C++ without comments, with one space for each run of comments and white space outside of texts."""
    return re.sub(
        r'(?P<text>"(?:\\.|[^"\\])*")|(?://[^\n]*|/\*.*?\*/|\s)+',
        lambda match: match["text"] or " ",
        text,
        flags=re.DOTALL,
    )
