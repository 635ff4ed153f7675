"""A terminal shows text of runs and never obeys it: colours, titles, the cursor, the order of letters."""

from __future__ import annotations

import ast
import io
import json
import os
import pty
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

import output
from experiments.folder.run_folder import RunFolder
from run_format import FAILED, RUNNING
from sweeps import show
from sweeps.launches import Launch, LaunchedRun
from sweeps.plan import load
from sweeps.status import describe
from tests.test_layering import ROOT, modules

HOSTILE = "a\x1b[2J\x1b]0;title\x07b\rc\x08\x7f\x9b31m\u202egnp [red]d[/red] [link=x]e"
OBEYED = {chr(code) for code in output.ESCAPES}
ARMS = ["zero", "axial"]


@pytest.fixture
def runs_dir(tmp_path):
    """Two runs that failed, with hostile words wherever a run can leave some."""
    plan = load("ablation_offsets", "smoke", {"train.lr": 0.002}, [0], ARMS)
    for run in plan.runs:
        folder = RunFolder(tmp_path / run.id)
        folder.freeze(run.config)
        folder.set_state(FAILED, cause=HOSTILE, step=1, steps=2, notes=[HOSTILE])
        folder.log.write_text(f"{HOSTILE}\n")
        folder.write_json("provenance.json", {"commit": HOSTILE, "code_fingerprint": HOSTILE})
    odd = tmp_path / f"odd-{HOSTILE.replace('/', '')}"
    odd.mkdir()
    (odd / "config.yaml").write_text(f"{{{HOSTILE}")
    return tmp_path


def words(command, runs_dir):
    settings = ["protocol=smoke", "seeds=[0]", f"arms=[{','.join(ARMS)}]", "train.lr=0.002"]
    own = {
        "logs": [f"logs={next(runs_dir.glob('scenes-*')).name}"],
        "list": ["list", "runs"],
        "error": [f"logs={HOSTILE}"],
    }
    return [*own.get(command, [f"{command}=ablation_offsets", *settings]), f"runs_dir={runs_dir}"]


def on_a_terminal(command, columns):
    """What a program writes into a terminal."""
    master, slave = pty.openpty()
    environment = os.environ | {"COLUMNS": str(columns), "TERM": "xterm-256color"}
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    written = b""
    while True:
        try:
            part = os.read(master, 1 << 16)
        except OSError:  # the program has ended
            break
        written += part
        if not part:
            break
    os.close(master)
    process.wait()
    return written.decode("utf-8", "replace").replace("\r\n", "\n")


@pytest.mark.parametrize("command", ["status", "report", "sweep", "price", "cancel", "logs", "list", "error"])
@pytest.mark.slow
def test_no_command_prints_what_a_terminal_obeys(runs_dir, command):
    more = ["--dry-run"] if command == "sweep" else []
    program = [sys.executable, "run.py", *words(command, runs_dir), *more]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert not OBEYED & set(done.stdout + done.stderr)
    if command in ("status", "logs", "error"):
        assert re.search(r"\\(u001b|x1b)\[2J", done.stdout + done.stderr), "nothing is left out"


def test_json_keeps_every_character(runs_dir):
    program = [sys.executable, "run.py", *words("status", runs_dir), "--json"]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True)
    assert not OBEYED & set(done.stdout)
    assert all(HOSTILE in run["detail"] for run in json.loads(done.stdout)["runs"])


@pytest.mark.parametrize("more", [["status", "--watch"], ["report"], ["logs"]])
def test_a_real_terminal_gets_colours_of_ours_and_nothing_of_a_run(runs_dir, more):
    written = on_a_terminal([sys.executable, "run.py", *words(more[0], runs_dir), *more[1:]], 200)
    assert "[2J" in written and "title" in written
    for obeyed in ("\x1b[2J", "\x1b]0;", "\x07", "\x08", "\x7f", "\x9b", "\u202e"):
        assert obeyed not in written
    if more[0] == "status":
        assert "\x1b[31mfailed" in written, "colours of ours are none of a run's"
        assert "[red]d[/red]" in written and "[link=x]" in written


def test_a_table_that_refreshes_itself_and_the_progress_of_runs_take_words_as_text(runs_dir, monkeypatch):
    plan = load("ablation_offsets", "smoke", {"train.lr": 0.002}, [0], ARMS)
    screen = io.TextIOWrapper(io.BytesIO(), "utf-8")
    screen.isatty = lambda: True
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, screen)
    monkeypatch.setenv("TERM", "xterm")
    output.escape_commands()
    RunFolder(runs_dir / plan.runs[0].id).set_state(RUNNING, cause=HOSTILE)
    runs = [LaunchedRun(run.id, run.arm, run.seed, run.task, None, "") for run in plan.runs]
    with show.live() as (say, progress):
        say(HOSTILE)
        progress(Launch(runs_dir / "launches" / "one", "ablation_offsets", 1, None, runs))(
            [run.id for run in plan.runs]
        )
    output.console().print(show._table(plan, describe(plan, runs_dir, {}), runs_dir, HOSTILE))
    screen.flush()
    written = screen.buffer.getvalue().decode()
    for obeyed in ("\x1b[2J", "\x1b]0;", "\x07", "\x08", "\x7f", "\x9b", "\u202e"):
        assert obeyed not in written
    assert "\x1b[" in written and "[red]d[/red]" in written


@given(st.text())
def test_any_text_is_printed_without_what_a_terminal_obeys_and_is_the_same_in_json(text):
    stream = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace")
    output._escape(stream)
    print(text, file=stream, flush=True)
    assert not OBEYED & set(stream.buffer.getvalue().decode())
    document = json.dumps(text, ensure_ascii=False)
    assert json.loads(document.translate(output.ESCAPES)) == text


def test_consoles_are_made_in_one_place():
    for name, path in modules().items():
        if name == "output" or name.startswith("benchmarks."):  # these show nothing of a run
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            assert called not in ("Console", "get_console"), f"{name}:{node.lineno}"
            if called in ("Live", "Bar"):
                assert "console" in {keyword.arg for keyword in node.keywords}, f"{name}:{node.lineno}"


def wide_table():
    table = Table("one column", "another", "a third", title="numbers")
    table.add_row("atmnet_xtiny_with_a_long_name" * 2, "1.0123456789" * 3, "words that may be wrapped " * 3)
    return table


def test_a_table_is_whole_where_there_is_no_terminal(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    output.print_table(wide_table())
    text = capsys.readouterr().out
    assert "atmnet_xtiny_with_a_long_name" * 2 in text and "1.0123456789" * 3 in text and "…" not in text


def test_a_table_is_wrapped_and_not_cut_in_a_narrow_terminal(monkeypatch):
    screen = io.TextIOWrapper(io.BytesIO(), "utf-8")
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "40")
    output.print_table(wide_table())
    screen.flush()
    text = re.sub(r"\x1b\[[0-9;]*m", "", screen.buffer.getvalue().decode())
    assert "…" not in text and all(len(line) <= 40 for line in text.splitlines())
    assert text.count("0123456789"[-1]) >= 3
