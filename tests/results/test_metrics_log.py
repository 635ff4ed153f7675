"""A log read with pyarrow is the log read line by line; whatever is not clean is read line by line."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from results.run_folders import metrics_log
from results.run_folders.metrics_log import MISSING, read_lines, read_logs

KEYS = st.sampled_from(
    ["train/loss", "train/lr", "eval/top1", "eval_ema/top1", "a/b", "note", "späte/Größe", "x/\u2028"]
)
NUMBERS = st.one_of(
    st.floats(allow_nan=True),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, -0.0, 10**400, 2**53 + 1, 1e-320]),
)
VALUES = st.one_of(NUMBERS, NUMBERS, st.none(), st.booleans(), st.text(max_size=3), st.just([1]), st.just({"step": 1}))
STEPS = st.one_of(st.integers(0, 10**6), st.sampled_from([1.0, 1.5, True, "1", None, 2**63, -(2**63), math.nan, 1e300]))
FOREIGN = st.sampled_from([
    "", " ", "{}", "[]", "1", "null", "garbage", '"text"', '{"step": 1}{"step": 2}', '{"step":', "\x00", '{"step": 3, "a/b": 1.}',
    '{"step": 3, "a/b": Inf}', '{"step": 3, "a/b": -NaN}', '{"step": 3, "a/b": -Infinity}', '{"step": 3, "a/b": NaN}',
    '{"step": 3, "a/b": -0}', '{"step": 3, "a/b": 01}', '{"step": 3, "a/b": 1e999}', '{"step": 3, "a/b": 1, "a/b": 2}',
    '{"step": 3, "a/b": null, "a/b": 2}', '{"step": 3, "a/b": 1} ', ' {"step": 3}', '{"step": 3, "\\u0061/b": 7}',
    '{"step": 3, "a/b": {}}', '{"step": 3, "a/b": 1},', '{"step": 4, "epoch": 1.5, "a/b": 1}', '{"step": 4, "epoch": null}',
    '{"step": 3, "a/b":\x0b1}', '{"step": 3}\r', '\ufeff{"step": 3}', "[" * 5000,
    '{"step": 3, "\\ud800/b": 1}', '{"step": 3, "\\ud83d\\ude00/b": 1}',
])  # fmt: skip


def free_rows():
    epochs = st.one_of(st.integers(0, 300), st.none(), st.just("late"), st.just(2.0), st.just(True))
    row = st.tuples(STEPS, epochs, st.dictionaries(KEYS, VALUES, max_size=4))
    return row.map(lambda parts: json.dumps({"step": parts[0], "epoch": parts[1], **parts[2]}))


@st.composite
def even_rows(draw):
    """Rows as the engine writes them: one set of keys, evaluated every so often; often clean."""
    keys = draw(st.lists(st.sampled_from(["train/loss", "eval/top1", "a/b"]), unique=True))
    every, numbers = (
        draw(st.integers(1, 3)),
        st.floats(allow_nan=draw(st.booleans()), allow_infinity=draw(st.booleans())),
    )
    rows = []
    for epoch in range(1, draw(st.integers(1, 6)) + 1):
        row_keys = [key for key in keys if not key.startswith("eval") or epoch % every == 0]
        rows.append(json.dumps({"step": 10 * epoch, "epoch": epoch, **{key: draw(numbers) for key in row_keys}}))
    return rows


@st.composite
def contents(draw):
    lines = draw(
        st.one_of(even_rows(), even_rows(), st.lists(st.one_of(free_rows(), free_rows(), FOREIGN), max_size=6))
    )
    if draw(st.integers(0, 3)) == 0:
        lines.insert(draw(st.integers(0, len(lines))), draw(FOREIGN))
    content = "".join(line + "\n" for line in lines).encode(errors="surrogatepass")
    return content[: len(content) - draw(st.sampled_from([0, 0, 0, 1, 2, 9]))]


def plainly_read(content):
    """A reader in a few lines: (step, epoch, metric → value) of every good row."""
    text, rows = content.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n"), []
    for line in text.splitlines():
        try:
            row = json.loads(line)
            json.dumps(list(row) if isinstance(row, dict) else 0, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and number(row.get("step")) and -(2**63) <= int(row["step"]) < 2**63:
            metrics = {key: float(value) + 0.0 for key, value in row.items() if "/" in key and number(value)}
            epoch = row.get("epoch") if number(row.get("epoch")) and row["epoch"] == int(row["epoch"]) else None
            rows.append((int(row["step"]), epoch, {key: repr(value) for key, value in metrics.items()}))
    return rows


def number(value):
    if type(value) is int and abs(value) > 10**308:
        return False
    return type(value) in (int, float) and math.isfinite(value)


def as_rows(log):
    return [
        (
            step,
            None if epoch == MISSING else epoch,
            {name: repr(value + 0.0) for name, value in zip(log.names, row) if value == value},
        )
        for step, epoch, row in zip(log.steps.tolist(), log.epochs.tolist(), log.values.tolist())
    ]


def read_fast(contents):
    """The logs that are read at once, by their position; whatever is not among them is read line by line."""
    slow = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            metrics_log, "read_lines", lambda content, where: slow.append(int(where.split("/")[0])) or (None, [])
        )
        logs = read_logs({str(position): content for position, content in enumerate(contents)})
    return {int(position): log for position, (log, _) in logs.items() if int(position) not in slow}


@settings(max_examples=400, deadline=None)
@given(st.lists(contents(), min_size=1, max_size=4))
def test_both_ways_give_the_same_log(some):
    fast_logs = read_fast(some)
    for position, content in enumerate(some):
        slow, warnings = read_lines(content, "run/metrics.jsonl")
        assert as_rows(slow) == plainly_read(content)
        if fast := fast_logs.get(position):
            assert warnings == [] and fast.last_line == slow.last_line and fast.names == slow.names
            for ours, expected in ((fast.steps, slow.steps), (fast.epochs, slow.epochs), (fast.values, slow.values)):
                assert ours.dtype == expected.dtype and np.array_equal(ours, expected, equal_nan=ours.dtype == float)


def log_of(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


CLEAN = {
    "every epoch": [{"step": 8 * n, "epoch": n, "train/loss": 1 / n, "eval/top1": n} for n in range(1, 9)],
    "every other epoch": [{"step": n, "epoch": n, "a/b": 0.1 * n, **({"eval/x": 2.5} if n % 2 == 0 else {})} for n in range(1, 9)],
    "nothing evaluated yet": [{"step": n, "epoch": n, "train/loss": 0.0} for n in range(3)],
    "a metric that is never defined": [{"step": n, "epoch": n, "eval/iou": math.nan, "a/b": 1.5} for n in range(3)],
    "a run that counts in steps alone": [{"step": n, "train/loss": 1 / n, "eval/x": 0.5} for n in range(1, 4)],
    "integers become floats": [{"step": 1, "epoch": 1, "a/b": 1}, {"step": 2, "epoch": 2, "a/b": 2.5}],
}  # fmt: skip


@pytest.mark.parametrize("kind", CLEAN)
def test_what_the_engine_writes_is_read_the_fast_way(kind):
    content = log_of(CLEAN[kind])
    fast = read_fast([content])[0]
    assert as_rows(fast) == plainly_read(content) and fast.last_line == len(CLEAN[kind])


def test_one_bad_log_does_not_slow_down_its_neighbours():
    good = log_of(CLEAN["every epoch"])
    bad, torn = good.replace(b'"eval/top1": 4', b'"eval/top1": "4"'), good[:-5]
    assert sorted(read_fast([good, bad, torn, good])) == [0, 3]
    logs = read_logs({"a": good, "b": bad, "c": torn, "d": b""})
    assert [len(log.steps) for log, _ in logs.values()] == [8, 8, 7, 0]
    assert not any(warnings for _, warnings in logs.values())
    assert [log.last_line for log, _ in logs.values()] == [8, 8, 7, None]


def test_bad_lines_are_named_and_the_last_good_one_is_known():
    log, warnings = read_lines(b'{"step": 1}\n\n[]\n{"step": 2}\n{"step": true}\n{"st', "r/metrics.jsonl")
    assert log.steps.tolist() == [1, 2] and log.last_line == 4
    assert [warning.split(": ")[0] for warning in warnings] == [f"r/metrics.jsonl:{line}" for line in (2, 3, 5)]
