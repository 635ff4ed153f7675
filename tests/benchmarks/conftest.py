"""A benchmark run from its command line, at settings that take a second."""

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
    """Threads that wait for one another on a busy machine take longer than these sizes need."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a benchmark; returns its JSON and what it printed, a row of the table to a line."""
    monkeypatch.setenv("COLUMNS", "300")

    def called(*words: str) -> tuple[dict[str, Any], str]:
        path = tmp_path / "report.json"
        assert main([*words, "--repeats", "1", "--json", str(path)]) == 0
        return json.loads(path.read_text()), capsys.readouterr().out

    return called


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What a benchmark says, in one line, that refuses to run."""

    def called(*words: str, code: int = 2) -> str:
        assert main(list(words)) == code
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1
        return said.err

    return called
