"""The commands ``offsets=``, ``complexity`` and ``collect=complexity``.

What they draw and print belongs to reports and what a sweep consists of to sweeps; the caller passes both.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from errors import ConfigError


def offsets(
    name: str,
    given: dict[str, Any],
    options: argparse.Namespace,
    sweep_names: Callable[[], list[str]],
    planned: Callable[[str, dict[str, Any]], tuple[Any, Path]],
    page: ModuleType,
    terminal: ModuleType,
) -> int:
    """Measures and draws the offsets of a run, of a weights file, or of all finished runs of a sweep."""
    from experiments.commands import run_named, runs_folder
    from experiments.config import read_site
    from experiments.identity import is_file
    from measurements.offsets import source as offset_source
    from measurements.offsets.measure import measure, measure_all

    wanted = offset_source.Wanted.taken_from(given)
    if name in sweep_names():
        planning, runs_dir = planned(name, given)
        configs = {run: each.config for run, each in planning.distinct().items()}
        sources = offset_source.of_sweep(configs, runs_dir)
        folders = measure_all(sources, wanted, options.fresh)
        plan, out = planning.as_dict(), runs_dir / "reports" / f"offsets-{name}-{planning.protocol}"
        summary, files = page.compare(plan, folders, out, options.mixed)
        if options.json:
            print(terminal.comparison_to_json(plan, summary, folders, files))
        else:
            terminal.show_comparison(plan, summary, folders)
    else:
        site = read_site()
        runs_dir = runs_folder(given, site)
        if is_file(name):
            source = offset_source.of_file(name, runs_dir, given, site)
        else:
            source = offset_source.of_run(run_named(runs_dir, name, sweep_names()), given, site)
        measured, files = page.write(measure(source, wanted, options.fresh))
        print(terminal.to_json(measured, files)) if options.json else terminal.show(measured)
    if not options.json:
        print(f"{len(files)} files, first of all {files[0]}")
    return 0


def complexity(name: str, given: dict[str, Any], options: argparse.Namespace, table: ModuleType) -> int:
    """Counts parameters and FLOPs of every classification model and arm, beside those that the papers print."""
    if options.words[1:]:
        raise ConfigError(f"complexity takes no {options.words[1]!r}")
    models = table.rows(name or None)
    from measurements.complexity import count

    comparison = table.compare(count, models)
    if options.json:
        print(table.to_json(comparison))
    else:
        table.show(comparison)
    return 0


def collect_complexity(options: argparse.Namespace, table: ModuleType) -> int:
    """Writes the counts of every model of the complexity table, for reports to show."""
    from measurements.complexity import architecture, count
    from results import counts

    counted: dict[tuple[str, int, str], float] = {}
    for row in table.rows():
        numbers = zip(table.METRICS, count(row.model, row.kwargs, row.size))
        counted |= {(row.label, 0, metric): number for metric, number in numbers}
        for stage, entry in enumerate(architecture(row.model, row.kwargs) if row.stages else [], 1):
            counted |= {(row.label, stage, metric): number for metric, number in entry.items()}
    file = str(counts.write(counted))
    print(json.dumps({"files": [file]}) if options.json else file)
    return 0
