"""``to=tensorboard``: a folder per run with its metrics as scalars and its settings as hyperparameters. No torch.

The package ``tensorboard`` writes the events, without TensorFlow; it is no requirement of the suite.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import atomic_file
from errors import ConfigError
from measurements.export import ExportRequest, view
from measurements.export.view import ViewedRun

FILE = "events.out.tfevents.0.metrics"  # TensorBoard knows files of events by the first part of their names


def export(request: ExportRequest) -> dict[str, Any]:
    """Raises ConfigError where the package is missing, and as ``view.make``."""
    try:
        import tensorboard.summary.writer.record_writer  # noqa: F401
    except ImportError:
        raise ConfigError("to=tensorboard needs the package tensorboard: pip install tensorboard") from None
    return view.make("tensorboard", request, _fill)


def _fill(runs: Sequence[ViewedRun], folder: Path) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    for run in runs:
        with atomic_file.writing(folder / run.id / FILE) as file:
            records = RecordWriter(file)
            for event in _events(run):
                records.write(event.SerializeToString(deterministic=True))


def _events(run: ViewedRun) -> list[Any]:
    """The version of the format, the settings, and an event per row of the log.

    Rows of the log have no time of day: all events have the time at which the run was made, so that the same runs
    give the same bytes.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import plugin_data_pb2, summary_v2

    time = _made(run)
    settings = {key: _plain(value) for key, value in run.settings.items()} | ({"arm": run.arm} if run.arm else {})
    hyperparameters = summary_v2.hparams_pb(settings, trial_id=run.id, start_time_secs=time)
    for value in hyperparameters.value:  # a mapping in it has another order in every process
        content = plugin_data_pb2.HParamsPluginData.FromString(value.metadata.plugin_data.content)
        value.metadata.plugin_data.content = content.SerializeToString(deterministic=True)
    events = [Event(wall_time=time, file_version="brain.Event:2"), Event(wall_time=time, summary=hyperparameters)]
    if run.log is not None:
        for step, row in zip(run.log.steps.tolist(), run.log.values.tolist()):
            numbers = [(name, value) for name, value in zip(run.log.names, row) if value == value]  # NaN: none
            values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers]
            events.append(Event(wall_time=time, step=step, summary=Summary(value=values)))
    return events


def _made(run: ViewedRun) -> float:
    """Seconds since 1970; 0 where the run does not say."""
    try:
        return datetime.fromisoformat(str(run.run.provenance.get("created"))).timestamp()
    except ValueError:
        return 0.0


def _plain(value: Any) -> bool | float | str:
    """A value that a hyperparameter can have."""
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)
