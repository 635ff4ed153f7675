"""Collections: the papers' tables as one graph of runs, planned, priced, shown, and launched through a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import run as command_line
from errors import ConfigError
from experiments.config import ROOT
from experiments.folder.run_folder import RunFolder
from reports import specification_files
from reports.content import compose
from reports.content.compose import Results
from results import archive, papers
from results.collect import collect
from run_format import DONE, NOT_RUN
from sweeps import launches, price, run_code
from sweeps.collection import load_collection
from sweeps.collection_state import CollectionState
from sweeps.plan import load
from sweeps.rates import PRICES, Rates, hardware_here, setup_of
from sweeps.schedule import LeftRun, wall_hours
from sweeps.status import describe, state_of
from tests.experiments.processes import assert_equal_runs
from tests.sweeps.test_sweeps import TINY, tiny_words

TABLES = {("AAAI", f"Table {number}"): f"table{number}" for number in range(1, 9)}
TABLES |= {("AAAI", "Fig. 2"): "figure2", ("v1", "Table 7"): "v1_table7"}
TRAINED = ("top1", "miou", "miou_ms", "ap_box", "ap50_box", "ap75_box", "ap_mask", "ap50_mask", "ap75_mask")
VARIANTS = ("xT", "T", "S", "B", "L")
OURS = {"table7": (*VARIANTS, "ResNet-50", "Swin-Tiny")}  # whose neck is the papers'
FAMILY = """\
recipes: {smoke: scenes}
downstream: {masks: {smoke: scenes_masks}, boxes: {smoke: {recipe: scenes_boxes, train.lr: 2.0e-3}}}
seeds: [0, 1]
baseline: parent
arms: {parent: {}}
"""
TUNED = """\
recipes: {smoke: scenes}
seeds: [0, 1]
baseline: start
arms: {start: {}, tuned: {start_from: start, train.lr: 1.0e-4}}
"""
COLLECTION = """\
# one parent, three children
kind: collection
seeds: {smoke: [0]}
tables:
  first: [{sweep: family.yaml, tasks: [own, masks]}]
  second: [{sweep: family.yaml, tasks: [boxes]}]
  third: [{sweep: tuned.yaml, arms: [tuned]}]
"""


def write_family(folder: Path) -> Path:
    """A collection of one parent and three children, as files of a user."""
    for name, text in (("family", FAMILY), ("tuned", TUNED), ("small", COLLECTION)):
        (folder / f"{name}.yaml").write_text(text)
    return folder / "small.yaml"


def spoken(capsys, *words: str) -> str:
    assert command_line.main(list(words)) == 0
    return str(capsys.readouterr().out)


def matching_cells(number: papers.Number) -> set[tuple[str, str]]:
    """Arm and task of every cell of the suite's sweeps that reproduces a printed number."""
    cells = set()
    for name in specification_files.names(specification_files.SWEEP):
        spec = specification_files.of_sweep(name)
        tasks = {"classification": spec.papers, **{task: report.papers for task, report in spec.tasks.items()}}
        for task, printed in tasks.items():
            label = printed.label if printed else ""
            resized = label.endswith(" px") and number.protocol.startswith(
                label.removesuffix(" px")
            )  # 384x384 in print
            if printed is None or printed.head != number.head or not (label == number.protocol or resized):
                continue
            for arm, described in spec.arms.items():
                for place in described.published:
                    of_row = (place.source, place.table, place.row) == (number.source, number.table, number.row)
                    if of_row and place.same_model and place.task in (None, task):
                        cells.add((f"{spec.sweep}/{arm}", task))
    return cells


@pytest.mark.slow
def test_every_trained_number_of_the_papers_is_one_planned_run_per_seed_and_nothing_else_is():
    plan = load_collection("paper")
    cells = {table: {(c.arm, c.task): c.runs for c in of_table} for table, of_table in plan.tables.items()}
    assert cells.keys() == set(TABLES.values())
    shown = set()
    for (source, name), table in TABLES.items():
        ours = [n for n in papers.numbers(source, name) if n.model in OURS.get(table, VARIANTS) and n.metric in TRAINED]
        assert ours
        for number in ours:
            found = {cell: cells[table][cell] for cell in matching_cells(number) if cell in cells[table]}
            assert len(set(found.values())) == 1, f"{number.place}, {number.head}, {number.protocol}: {found}"
            (runs,) = set(found.values())
            assert [plan.distinct()[run].seed for run in runs] == [0, 1, 2]
            shown |= {(table, *cell) for cell in found}
    planned = {(table, *cell) for table, of_table in cells.items() for cell in of_table}
    assert shown == {cell for cell in planned if not cell[1].endswith("/zero_peg")}, "but for PEG's controls"
    assert {cell[0] for cell in planned - shown} == {"table8", "v1_table7"}


@pytest.mark.slow
def test_every_trained_number_of_the_papers_has_the_runs_that_are_planned_for_it_in_its_table(tmp_path):
    results = []
    for name in sorted({each.sweep for each in load_collection("paper").sweeps}):
        plan = load(name).as_dict()
        results.append(Results(specification_files.of_sweep(name), collect(plan, tmp_path), plan, tmp_path))
    for table in specification_files.names(specification_files.PUBLISHED):
        if not specification_files.load(table).columns:
            continue
        page = compose.page(table, results, figures=False)
        assert page.left_out == ()
        without = [each for each in page.sections[0].records if each["state"] == NOT_RUN and each["verdict"]]
        without = [each for each in without if not each["runs"]]
        assert {each["metric"] for each in without} <= {"miou_ms"}, "evaluate= judges at several scales"


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["paper", "smoke"])
def test_the_runs_of_the_papers_are_those_of_the_sweeps_parents_first(protocol):
    plan = load_collection("paper", protocol)
    seen: set[str] = set()
    for run in plan.runs:
        assert run.parent is None or run.parent in seen
        seen.add(run.id)
        sweep, arm = run.arm.split("/")
        assert run.arm in plan.labels and run.task in {task.name for task in plan.tasks}
        of_sweep = {(each.arm, each.task, each.seed): each.id for each in load(sweep, protocol).runs}
        assert of_sweep[arm, run.task, run.seed] == run.id
    if protocol == "paper":
        assert len({run.id for run in plan.runs if run.arm in ("variants/t", "ablation_peg/k2_peg")}) < len(
            [run for run in plan.runs if run.arm in ("variants/t", "ablation_peg/k2_peg")]
        ), "T is trained once for both"
    assert set(plan.runs_by_table()["table2"]) <= set(plan.distinct())
    assert sorted({run for runs in plan.runs_by_table().values() for run in runs}) == sorted(plan.distinct())


def test_some_tables_and_seeds_can_be_taken(capsys):
    words = ["sweep=paper", "tables=[table8,figure2]", "seeds=[5]", "--dry-run", "--json"]
    document = json.loads(spoken(capsys, *words))
    assert list(document["tables"]) == ["table8", "figure2"]
    assert {run["seed"] for run in document["runs"]} == {5}
    runs = {run["id"]: run for run in document["runs"]}
    assert len(runs) == len(document["runs"]) and all(run["state"] == NOT_RUN for run in runs.values())
    for run in runs.values():
        assert run["tables"] and all(parent in runs for parent in run["depends_on"])
    assert any(run["depends_on"] for run in runs.values())
    table1 = load_collection("paper", seeds=[0], tables=["table1"])
    assert {run.task for run in table1.runs} == {"classification"} and len(table1.distinct()) == 6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep=paper", "tables=[tabel8]"], "unknown table of paper 'tabel8'; did you mean 'table8'"),
        (["sweep=variants", "tables=[table8]"], "tables= chooses parts of a collection, and variants is one sweep"),
        (["sweep=paper", "arms=[zero]"], "choose some with tables="),
        (["sweep=paper", "tasks=[upernet]"], "choose some with tables="),
        (["sweep=paper", "protocol=smok"], "unknown protocol 'smok'; did you mean 'smoke'"),
        (["sweep=paper", "gpus=8"], "with --dry-run"),
        (["status=paper", "gpus=none"], "give a number of devices"),
        (["status=variants", "gpus=8"], "price=variants"),
        (["collect=paper", "into=all", "measured=reach-smoke"], "collects several"),
    ],
)
def test_words_that_make_no_sense_for_a_collection_are_refused_in_one_line(words, message, capsys):
    assert command_line.main([*words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("text", "other", "message"),
    [
        ("tasks: [boxes]", "tasks: [boxs]", "second: tasks: unknown task 'boxs'; did you mean 'boxes'?"),
        ("arms: [tuned]", "arms: [tunde]", "third: arms: unknown arm 'tunde'; did you mean 'tuned'?"),
        ("arms: [tuned]", "arm: [tuned]", "third: unknown key 'arm'; did you mean 'arms'?"),
        ("arms: [tuned]", "arms: tuned", "third: arms: give a list of names, not 'tuned'"),
        ("sweep: tuned.yaml", "swep: tuned.yaml", "third: a part names a sweep"),
        ("seeds: {smoke: [0]}", "seeds: [0]", "seeds: give them by protocol"),
        ("seeds: {smoke: [0]}", "seeds: {smoke: [0, 0]}", "give every seed once"),
        ("tables:", "table:", "unknown key 'table'; did you mean 'tables'?"),
    ],
)
def test_a_collection_file_with_contradictions_is_refused_in_one_line(tmp_path, text, other, message):
    path = write_family(tmp_path)
    path.write_text(COLLECTION.replace(text, other))
    with pytest.raises(ConfigError) as refused:
        load_collection(str(path), "smoke")
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_a_plan_of_the_papers_loads_no_torch_and_reads_no_data(tmp_path):
    program = (
        "import sys, run\n"
        "for words in (['sweep=paper', '--dry-run', '--json', 'gpus=8'], ['status=paper', '--json']):\n"
        f"    assert run.main([*words, 'runs_dir={tmp_path}', 'data.root=/nowhere']) == 0\n"
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules\n"
    )
    before = os.times().children_user
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, timeout=120)
    assert os.times().children_user - before < 2 * 2, "two commands, each under two seconds"


def test_runs_that_are_left_take_the_devices_as_soon_as_they_may():
    assert wall_hours({}, 2) == 0
    assert wall_hours({"a": LeftRun(3), "b": LeftRun(2), "c": LeftRun(2)}, 2) == 4
    family = {
        "parent": LeftRun(2),
        "lone": LeftRun(3),
        "child": LeftRun(4, parent="parent"),
        "other": LeftRun(1, parent="parent"),
    }
    assert wall_hours(family, 8) == 6
    assert wall_hours(family, 2) == 6, "the longest chain goes first"
    assert wall_hours(family, 1) == 10
    assert wall_hours({"wide": LeftRun(1, devices=4), "a": LeftRun(1), "b": LeftRun(1)}, 4) == 2
    assert wall_hours({"wide": LeftRun(1, devices=4)}, 2) == 1, "more devices than there are"


def test_prices_are_summed_by_table_and_the_cheapest_cell_is_named(tmp_path, capsys):
    path = write_family(tmp_path)
    plan = load_collection(str(path), "smoke", TINY)
    runs = {run.task if run.arm != "tuned/tuned" else "tuned": run for run in reversed(plan.runs)}
    rates = Rates(tmp_path / PRICES)
    for images_per_s, task in ((2.0, "token_labelling"), (1.0, "boxes")):
        rate = {"hardware": "CPU (slow)", "train_images_per_s": images_per_s, "eval_images_per_s": 1.0}
        config = runs[task].config
        rates.add(setup_of(config, hardware_here(config)), {**rate, "steps_per_epoch": 2, "eval_images": 4})
    known = price.hours_by_run(plan, tmp_path)
    hours = known.hours
    assert (
        known.unit == "device-hours"
        and known.hardware == ("CPU (slow)",)
        and set(hours) == {runs[name].id for name in ("token_labelling", "tuned", "boxes")}
    )
    assert hours[runs["boxes"].id] == pytest.approx((16 / 1 + 4 / 1) / 3600)
    state = CollectionState.of(plan, tmp_path, describe(plan, tmp_path))
    cheapest = state.next_cell()
    assert (cheapest.table, cheapest.run) == ("first", runs["token_labelling"].id)
    words = [*tiny_words("protocol=smoke"), f"runs_dir={tmp_path}", "gpus=2"]
    document = json.loads(spoken(capsys, f"sweep={path}", *words, "--dry-run", "--json"))
    parent, child = hours[runs["token_labelling"].id], hours[runs["boxes"].id]
    assert document["tables"]["second"]["hours"] == pytest.approx(parent + child)
    assert document["tables"]["first"]["not_priced"] == 1 == document["not_priced"]
    assert document["hours"] == pytest.approx(2 * parent + child), "a shared run counts once"
    assert document["wall_hours"] == pytest.approx(parent + child)
    text = spoken(capsys, f"status={path}", *words)
    assert "cheapest next cell: family/parent, token_labelling of first" in text
    assert "third" in text and "0 of 1 seeds; seed 0 not run" in text and "without 1 runs that have no price" in text
    assert f"price={path}" in text


@pytest.mark.slow
def test_tables_of_the_papers_say_what_a_run_costs_that_is_not_run(tmp_path, capsys):
    plan = load_collection("paper", tables=["table8"], seeds=[0])
    rates = Rates(tmp_path / PRICES)
    rate = {"hardware": "CPU (slow)", "train_images_per_s": 100.0, "eval_images_per_s": 100.0}
    for _, run in rates.missing(list(plan.distinct().values()), None, fresh=False):
        setup = setup_of(run.config, hardware_here(run.config))
        rates.add(setup, {**rate, "steps_per_epoch": 1000, "eval_images": 5000})
    assert price.estimate(plan, tmp_path).left == len(plan.distinct()), "all set-ups are known"
    state = CollectionState.of(plan, tmp_path, describe(plan, tmp_path))
    words = ["report=aaai_table8", f"runs_dir={tmp_path}", "seeds=[0]"]
    assert "not run, " in (text := spoken(capsys, *words)) and "device-hours on CPU (slow)" in " ".join(text.split())
    (section,) = json.loads(spoken(capsys, *words, "--json"))["sections"]
    hours = {(each["row"], each["metric"]): each["hours"] for each in section["rows"] if each["hours"]}
    for row, arm in (("①", "zero"), ("②", "stage_nopeg"), ("③", "k2_peg")):
        own, boxes = (
            next(run.id for run in plan.runs if (run.arm, run.task) == (f"ablation_peg/{arm}", task))
            for task in ("classification", "retinanet_1x")
        )
        assert hours[row, "top1"] == pytest.approx(state.hours[own], abs=0.01)
        assert hours[row, "ap_box"] == pytest.approx(state.hours[own] + state.hours[boxes], abs=0.01), "with its parent"


def wait(until, seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_launcher_that_is_killed_in_the_middle_leaves_a_graph_that_the_next_one_completes(
    tmp_path, monkeypatch, capsys
):
    path = write_family(tmp_path)
    disturbed, reference = tmp_path / "runs", tmp_path / "reference"
    words = tiny_words(f"sweep={path}", "protocol=smoke", "--jobs", "2", "train.epochs=12")

    def launch(runs_dir: Path, *more: str) -> str:
        command = [sys.executable, "run.py", *words, f"runs_dir={runs_dir}", *more]
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=400).stdout

    plan = load_collection(str(path), "smoke", TINY | {"train.epochs": 12})
    runs = plan.distinct()
    assert len(runs) == 4 and sum(run.parent is None for run in runs.values()) == 1
    folders = {run: RunFolder(disturbed / run) for run in runs}
    (parent,) = (folders[run.id] for run in runs.values() if run.parent is None)
    launch(disturbed, "--background")
    wait(lambda: sum(run_code.has_begun(folder) for folder in folders.values()) >= 3 and parent.finished())
    ((record, launcher),) = launches.alive(disturbed, list(runs))
    os.kill(launcher.pid, signal.SIGKILL)
    wait(lambda: not record.launcher)
    running = [folder for folder in folders.values() if folder.holder()]
    for folder in running[:1]:
        os.kill(folder.holder().pid, signal.SIGKILL)
        wait(lambda folder=folder: not folder.holder())
    finished = (parent.path / "summary.json").stat().st_mtime_ns

    assert "4 of 4 runs done" in launch(disturbed)
    assert (parent.path / "summary.json").stat().st_mtime_ns == finished, "nothing is run twice"
    assert parent.log.read_text().count(" steps on ") == 1
    assert "4 of 4 runs done" in launch(reference)
    for run in runs:
        assert state_of(folders[run])[0] == DONE
        assert_equal_runs(folders[run], RunFolder(reference / run))

    monkeypatch.setattr("reports.commands.PAGES", tmp_path / "pages")
    settings = [*tiny_words("protocol=smoke", "train.epochs=12"), f"runs_dir={disturbed}"]
    spoken(capsys, f"collect={path}", *settings, "into=mine")
    assert sorted(archive.labels()) == ["mine-family", "mine-tuned"], "each sweep has results of its own"
    first, second = (archive.read(archive.folder(label)) for label in archive.labels())
    assert set(first.runs["run"]) | set(second.runs["run"]) == set(runs), "shared runs are in both"
    for label, sweep in (("mine-family", "family"), ("mine-tuned", "tuned")):
        spoken(capsys, f"report={tmp_path / sweep}.yaml", f"measured={label}")
        assert (tmp_path / "pages" / label / "report.md").is_file()
    assert "holds all of this already" in spoken(capsys, f"collect={path}", *settings, "into=mine")


@pytest.mark.parametrize(
    ("tables", "kills"),
    [
        pytest.param(["table1"], 1, marks=pytest.mark.timeout(900)),
        pytest.param(None, 5, marks=[pytest.mark.chaos, pytest.mark.timeout(7200)]),  # all 31 runs
    ],
)
@pytest.mark.slow
def test_the_papers_at_smoke_scale_outlive_kills_of_their_launcher_with_the_same_bits(tmp_path, tables, kills):
    words = tiny_words("sweep=paper", "protocol=smoke", "--jobs", "2", "train.epochs=4")
    words += [f"tables={json.dumps(tables)}"] * bool(tables)
    runs = load_collection("paper", "smoke", TINY | {"train.epochs": 4}, tables=tables).distinct()
    folders = {run: RunFolder(tmp_path / "runs" / run) for run in runs}
    starts = dict.fromkeys(runs, 1)

    def launch(runs_dir: Path, *more: str) -> str:
        command = [sys.executable, "run.py", *words, f"runs_dir={runs_dir}", *more]
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=3600).stdout

    def ended() -> dict[str, int]:
        return {
            run: (each.path / "summary.json").stat().st_mtime_ns for run, each in folders.items() if each.finished()
        }

    def begun(run: str) -> int:
        return folders[run].log.read_text().count(" steps on ")  # of each start

    for number in range(kills):
        launch(tmp_path / "runs", "--background")
        moment = (number + 1) * len(runs) // (kills + 1)  # runs that are done by then
        wait(
            lambda moment=moment: len(ended()) >= moment and any(each.holder() for each in folders.values()),
            1200,
        )
        ((record, launcher),) = launches.alive(tmp_path / "runs", list(runs))
        os.kill(launcher.pid, signal.SIGKILL)
        wait(lambda record=record: not record.launcher)
        held = [(run, each.holder()) for run, each in folders.items() if each.holder()]
        for run, holder in held[: number % 2]:  # by turns, a run dies with it or all go on
            os.kill(holder.pid, signal.SIGKILL)
            wait(lambda run=run: not folders[run].holder())
            starts[run] = begun(run) + (not folders[run].finished())
    before = ended()
    assert len(before) < len(runs)
    assert f"{len(runs)} of {len(runs)} runs done" in launch(tmp_path / "runs")
    assert ended().items() >= before.items(), "nothing is trained twice"
    assert {run: begun(run) for run in runs} == starts
    launch(tmp_path / "reference")
    for run, folder in folders.items():
        assert_equal_runs(folder, RunFolder(tmp_path / "reference" / run))


def test_table_lines_have_equal_columns(tmp_path):
    plan = load_collection(str(write_family(tmp_path)), "smoke", TINY)
    lines = CollectionState.of(plan, tmp_path, describe(plan, tmp_path)).table_lines()
    assert len(lines) == 1 + 3 + 1 and lines[-1].startswith("all")
    assert len({line.rindex("  ") for line in lines}) == 1
