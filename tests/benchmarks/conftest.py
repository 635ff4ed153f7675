"""Fixtures that run a benchmark from its command line, at settings that take a second."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.__main__ import main

Run = Callable[..., tuple[dict[str, Any], str]]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine, synchronising threads takes longer than computing at these sizes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """A function that runs a benchmark and returns its JSON and its printed table, one line per row."""
    monkeypatch.setenv("COLUMNS", "300")

    def called(*words: str) -> tuple[dict[str, Any], str]:
        path = tmp_path / "report.json"
        assert main([*words, "--repeats", "1", "--json", str(path)]) == 0
        return json.loads(path.read_text()), capsys.readouterr().out

    return called


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """A function that returns the one-line error of a benchmark that refuses its options."""

    def called(*words: str, code: int = 2) -> str:
        assert main(list(words)) == code
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1
        return captured.err

    return called
