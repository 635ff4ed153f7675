"""The commands ``offsets=``, ``reach=``, ``complexity``, ``evaluate=``, ``export=`` and ``predict=``.

Pages and tables belong to ``reports`` and plans to ``sweeps``, rooms above this one; run.py passes their functions.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from errors import ConfigError
from experiments.backbones import TIMM, check_name, is_timm
from run_format import PROVENANCE


def offsets(
    name: str,
    settings: dict[str, Any],
    options: argparse.Namespace,
    sweep_names: Callable[[], list[str]],
    planned: Callable[[str, dict[str, Any]], tuple[Any, Path]],
    page: ModuleType,
    terminal: ModuleType,
    interventions: ModuleType,
    print_section: Callable[[Any], None],
) -> int:
    """Measures and draws the offsets of a run, of a weights file, or of all finished runs of a sweep's own task.

    With ``interventions=``, measures instead what these models lose when they read with other offsets.
    """
    from experiments.commands import run_named, runs_folder
    from experiments.config import read_site
    from experiments.paths import is_file
    from measurements.offsets import source
    from measurements.offsets.effects import InterventionRequest, intervene, intervene_all
    from measurements.offsets.measure import measure, measure_all

    asked = InterventionRequest.taken_from(settings)
    request = source.OffsetRequest.taken_from(settings)
    if name.endswith(".yaml") or name in sweep_names():
        plan, runs_dir = planned(name, settings)
        # an arm has one place in the comparison: its offsets after the sweep's own task
        plan = replace(plan, runs=[run for run in plan.runs if run.task == plan.tasks[0].name])
        sources = source.of_sweep({run: each.config for run, each in plan.distinct().items()}, runs_dir)
        out = runs_dir / "reports" / f"{'interventions' if asked else 'offsets'}-{plan.sweep}-{plan.protocol}"
        if asked:
            found = intervene_all(sources, asked, options.fresh)
            section, files = interventions.compare(plan.as_dict(), found, out, options.mixed)
            if options.json:
                print(terminal.interventions_to_json(plan.as_dict(), section, found, files))
            else:
                print_section(section)
                terminal.show_missing(found)
        else:
            folders = measure_all(sources, request, options.fresh)
            summary, files = page.compare(plan.as_dict(), folders, out, options.mixed)
            if options.json:
                print(terminal.comparison_to_json(plan.as_dict(), summary, folders, files))
            else:
                terminal.show_comparison(plan.as_dict(), summary, folders)
    else:
        site = read_site()
        runs_dir = runs_folder(settings, site)
        if is_file(name):
            model = source.of_file(name, runs_dir, settings, site)
        else:
            model = source.of_run(run_named(runs_dir, name, sweep_names(), "sweep or run"), settings, site)
        if asked:
            files = [intervene(model, asked, options.fresh)]
            about = interventions.read(files[0])
            print(json.dumps({**about, "written": [str(files[0])]})) if options.json else print_section(
                interventions.of_run(about)
            )
        else:
            measured, files = page.write(measure(model, request, options.fresh))
            print(terminal.to_json(measured, files)) if options.json else terminal.show(measured)
    if not options.json:
        print(f"{len(files)} files, first of all {files[0]}" if len(files) > 1 else files[0])
    return 0


def reach(
    name: str,
    settings: dict[str, Any],
    options: argparse.Namespace,
    is_sweep: Callable[[str], bool],
    planned: Callable[[str, dict[str, Any]], tuple[Any, Path]],
    page: ModuleType,
    print_section: Callable[[Any], None],
) -> int:
    """Measures and draws the effective receptive field of a run, of a weights file, of a network of timm, or of all
    finished runs of a sweep's own task."""
    from experiments.commands import run_named, runs_folder
    from experiments.config import read_site
    from experiments.paths import is_file
    from measurements.receptive_field import source

    request = source.FieldRequest.taken_from(settings)
    if is_sweep(name):
        plan, runs_dir = planned(name, settings)
        plan = replace(plan, runs=[run for run in plan.runs if run.task == plan.tasks[0].name])
        sources = source.of_sweep({run: each.config for run, each in plan.distinct().items()}, runs_dir)
        from measurements.receptive_field.measure import measure_all  # loads torch, which takes seconds

        folders = measure_all(sources, request, options.fresh)
        out = runs_dir / "reports" / f"receptive_field-{plan.sweep}-{plan.protocol}"
        section, files = page.compare(plan.as_dict(), folders, out, options.mixed)
    else:
        site = read_site()
        runs_dir = runs_folder(settings, site)
        if is_timm(name):
            model = source.of_timm(name, runs_dir, settings, site)
        elif is_file(name):
            model = source.of_file(name, runs_dir, settings, site)
        else:
            model = source.of_run(run_named(runs_dir, name), settings, site)
        from measurements.receptive_field.measure import measure as measure_one

        section, files = page.write(model.name, measure_one(model, request, options.fresh))
    if options.json:
        print(page.to_json(section, files))
    else:
        print_section(section)
        print(f"{len(files)} files, first of all {files[0]}")
    return 0


def complexity(
    name: str,
    settings: dict[str, Any],
    options: argparse.Namespace,
    table: ModuleType,
    print_section: Callable[[Any], None],
) -> int:
    """Counts parameters and FLOPs of every classifier, arm and dense model, beside those that the papers print.

    name: a task, a variant of ATMNet, or ``timm/NAME`` for any classifier of timm; empty for all of the table.
    """
    if options.words[1:]:
        raise ConfigError(f"complexity takes no {options.words[1]!r}")
    if is_timm(name):
        check_name(name)
        from measurements.complexity import image_size

        models = table.unpublished(name, name.removeprefix(TIMM), image_size(name.removeprefix(TIMM)))
    else:
        models = table.rows(name or None)
    from measurements.complexity import count_network

    comparison = table.compare(count_network, models)
    if options.json:
        print(table.to_json(comparison))
    else:
        print_section(table.section(comparison))
    return 0


def collect_complexity(options: argparse.Namespace, table: ModuleType) -> int:
    """Writes the counts of every model of the complexity table and the settings of recipes, for reports to show."""
    from measurements.complexity import architecture, count_network
    from measurements.training_settings import settings
    from results import counts, recipes

    counted: dict[tuple[str, int, str], float] = {}
    for row in table.rows():
        numbers = zip(table.METRICS, count_network(row.model, row.kwargs, row.head, row.image_size))
        counted |= {(row.label, 0, metric): number for metric, number in numbers}
        for stage, entry in enumerate(architecture(row.model, row.kwargs) if row.stages else [], 1):
            counted |= {(row.label, stage, metric): number for metric, number in entry.items()}
    written = [str(counts.write(counted)), str(recipes.write(dict(settings())))]
    print(json.dumps({"files": written}) if options.json else "\n".join(written))
    return 0


def evaluate(name: str, settings: dict[str, Any], options: argparse.Namespace) -> int:
    """Judges the weights of a finished run or of a file without training, and says what they are worth."""
    from experiments.commands import run_named, runs_folder
    from experiments.config import read_site
    from experiments.paths import is_file
    from measurements import evaluation_settings
    from measurements.finished_run import finished

    site = read_site()
    runs_dir = runs_folder(settings, site)
    kind = evaluation_settings.kind_taken_from(settings)
    if is_file(name):
        config = evaluation_settings.of_file(name, settings, site)
    else:
        folder = run_named(runs_dir, name)
        finished(folder, "evaluate")
        config = evaluation_settings.of_run(folder.id, folder.config(), settings, site)
    from measurements import judged_weights  # loads torch, which takes seconds
    from measurements.evaluate import JudgedRun, describe
    from measurements.evaluate import evaluate as judge

    if is_file(name):
        weights = judged_weights.of_file(name, kind)
        result, summary = judge(Path(name).stem, config, weights, runs_dir, fresh=options.fresh)
    else:
        weights = judged_weights.of_run(folder, config, kind)
        result, summary = judge(folder.id, config, weights, runs_dir, JudgedRun.of(folder), options.fresh)
    found = {**summary, "provenance": result.read_json(PROVENANCE), "folder": str(result.path)}
    print(json.dumps(found) if options.json else "\n".join(describe(found)))
    return 0


def export(
    name: str,
    settings: dict[str, Any],
    options: argparse.Namespace,
    is_sweep: Callable[[str], bool],
    planned: Callable[[str, dict[str, Any]], tuple[Any, Path]],
) -> int:
    """Writes what ``to=`` names of a run, or of the runs of a sweep, into a folder.

    planned: a sweep's name and settings → its plan and the folder of its run folders.
    """
    from experiments.commands import run_named, runs_folder
    from experiments.config import read_site
    from experiments.paths import expanded
    from measurements.export import TARGETS, ExportRequest, target

    to, given = settings.pop("to", None), settings.pop("into", None)
    if to is None:
        raise ConfigError(f"export={name}: give to=NAME ({', '.join(TARGETS)})")
    write, into = target(str(to)), None if given is None else expanded("into", str(given))
    if is_sweep(name):
        plan, runs_dir = planned(name, settings)
        arms: dict[str, list[str]] = {}
        for run in plan.runs:
            arms.setdefault(run.id, []).append(run.arm)
        joined = {run: ", ".join(dict.fromkeys(names)) for run, names in arms.items()}
        request = ExportRequest(f"{plan.sweep}-{plan.protocol}", runs_dir, joined, {}, into)
    else:
        runs_dir = runs_folder(settings, read_site())
        run = run_named(runs_dir, name).id
        request = ExportRequest(run, runs_dir, {run: ""}, settings, into)
    document = write(request)
    print(json.dumps(document) if options.json else "\n".join(document["written"]))
    return 0


def predict(
    name: str, settings: dict[str, Any], options: argparse.Namespace, segments: ModuleType, boxes: ModuleType
) -> int:
    """Draws what a finished run predicts for images, and says it in words or numbers.

    segments, boxes: the modules that draw for segmentation and for detection.
    """
    import atomic_file
    from experiments.commands import run_named, runs_folder
    from experiments.config import read_site
    from measurements import predict as predictions

    files = predictions.image_files(settings.pop("images", None))
    runs_dir = runs_folder(settings, read_site())
    folder = run_named(runs_dir, name)
    config, summary = predictions.finished_run(folder, settings)
    shown = config.detect.score_threshold if "detect.score_threshold" in settings else None
    names = predictions.class_names(summary)
    pictures = {"segmentation": segments, "detection": boxes}
    out = folder.path / "predictions"
    stems = [file.stem for file in files]
    described = []
    for prediction in predictions.predict(folder, config, files, shown):
        path = prediction.path
        file = out / f"{path.stem if stems.count(path.stem) == 1 else path.name}.png"
        atomic_file.write(file, prediction.draw(pictures, names))
        described.append({"image": str(path), "picture": str(file), **prediction.describe(names)})
        if not options.json:
            print(f"{path.name}: {prediction.sentence(names)}")
    print(json.dumps({"run": folder.id, "predictions": described}) if options.json else out)
    return 0
