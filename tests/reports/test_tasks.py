"""A sweep of several tasks is one table, its verdicts one family; a sweep without a specification has a report."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

from errors import ConfigError
from reports import commands, specification_files
from reports.content import compose, published
from reports.content.build_table import build
from reports.content.reproduction import OurResults, Reproduction
from reports.content.table import variant
from reports.content.text import signed, text
from reports.content.values import NOTHING, PairedDifference, Printed, SeedMean
from reports.formats import files, macros, terminal
from reports.specification import SpecificationError
from results.statistics.estimates import TOLERANCE
from results.statistics.verdicts import Verdict, holm
from tests.reports.made_up import TASKS, collected_by_hand, plan_of_tasks
from tests.reports.test_render import tables, unescaped_bars

TABLE8 = {  # AAAI Table 8 as the report of one sweep: ImageNet, COCO and ADE20K in one row
    "title": "Active mixing and PEG",
    "question": "What do offsets add, and what does PEG add?",
    "sweep": "table8",
    "protocols": {"paper": {"metric": "eval_ema/top1", "label": "Top-1"}},
    "papers": {"protocol": "paper", "label": "ImageNet-1K, 300 epochs", "metric": "top1"},
    "tasks": {
        "detection": {
            "papers": {"protocol": "paper", "label": "COCO, 1x", "metric": "ap_box", "head": "RetinaNet"},
        },
        "segmentation": {
            "protocols": {"paper": {"metric": "eval/miou", "label": "ADE20K mIoU"}},
            "papers": {"protocol": "paper", "label": "ADE20K", "metric": "miou", "head": "Semantic FPN"},
        },
    },
    "arms": {
        "zero": {"label": "zero", "published": [{"source": "AAAI", "table": "Table 8", "row": "①"}]},
        "axial": {
            "label": "axial",
            "published": [{"source": "AAAI", "table": "Table 8", "row": "②", "baseline": "①"}],
        },
        "axial_peg": {
            "label": "axial, PEG",
            "published": [
                {"source": "AAAI", "table": "Table 8", "row": "③", "baseline": "①"},
                {"source": "AAAI", "table": "Table 1", "row": "ATMNet-T", "task": "classification"},
            ],
        },
    },
    "figures": [{"kind": "accuracy_flops"}, {"kind": "forest"}, {"kind": "learning_curves"}],
}
MEANS = {  # (task, arm) → mean over three seeds
    ("classification", "zero"): 79.3, ("classification", "axial"): 82.0, ("classification", "axial_peg"): 82.1,
    ("detection", "zero"): 36.0, ("detection", "axial"): 43.4, ("detection", "axial_peg"): 30.0,
    ("segmentation", "zero"): 37.9, ("segmentation", "axial"): 45.6, ("segmentation", "axial_peg"): None,
}  # fmt: skip


@pytest.fixture
def table8(tmp_path, monkeypatch):
    """Writes the specification, with changes; the names of all others stay valid."""

    def written(**changes):
        content = {**TABLE8, **changes}
        content["tasks"] = {"classification": {**{k: content[k] for k in ("protocols", "papers")}}, **content["tasks"]}
        (tmp_path / "table8.yaml").write_text(yaml.safe_dump(content, allow_unicode=True))
        for path in specification_files.SPECS.glob("*.yaml"):
            if path.parent != tmp_path:
                (tmp_path / path.name).write_bytes(path.read_bytes())
        monkeypatch.setattr(specification_files, "SPECS", tmp_path)
        return specification_files.of_sweep("table8")

    return written


def results(spec, **changes):
    plan = plan_of_tasks("table8", ["zero", "axial", "axial_peg"], **changes)
    return compose.Results(spec, collected_by_hand(plan, MEANS), plan, Path("none"))


def cells_of(section, arm):
    row = next(row for row in section.grid.rows if text(row[0].value) == arm)
    return {name: cell.value for name, cell in zip(section.grid.header, row, strict=True)}


def test_one_row_has_the_metrics_of_all_tasks_with_their_differences_and_the_papers(table8):
    of_tasks = results(table8())
    section = compose.page("table8", [of_tasks], figures=False).sections[0]
    assert section.grid.header == (
        "Arm", "Params (M)", "FLOPs (G)", "Top-1 (%)", "Box AP (%)", "ADE20K mIoU (%)"
    )  # fmt: skip
    axial, peg, zero = section.grid.groups
    assert [text(row[0].value) for row in zero] == ["zero", "papers"]
    assert [text(row[0].value) for row in axial] == ["axial", "Δ to zero", "papers"]
    means, differences, printed = (row[3:] for row in axial)
    for number, (mean, difference, papers) in enumerate(
        ((82.0, 2.7, "82.0"), (43.4, 7.4, "43.4"), (45.6, 7.7, "45.6"))
    ):
        assert means[number].value.interval.mean == pytest.approx(mean)
        value = differences[number].value
        assert value.difference.difference.mean == pytest.approx(difference) and value.words == "different"
        assert text(value).endswith(f"; papers +{difference}: agrees") and "(p " in text(value)
        assert len(differences[number].runs) == 6 and text(printed[number].value) == f"{papers} (T)"
    assert text(peg[1][4].value).endswith("papers +7.6: excluded")
    assert text(peg[0][5].value) == "not run" and peg[1][5].value == NOTHING
    assert "Box AP: `eval/ap_box`" in " ".join(section.legend) and "(task detection)" in " ".join(section.legend)


def test_the_table_of_each_task_has_the_papers_and_their_verdicts(table8):
    of_tasks = results(table8())
    _, *tasks = compose.page("table8", [of_tasks], figures=False).sections
    assert [section.name for section in tasks] == [f"table8-paper-{task}" for task in TASKS]
    axial = cells_of(tasks[1], "axial")
    assert isinstance(axial["Box AP (%)"], SeedMean)
    assert isinstance(axial["Δ to zero [95 % over seeds, these images]"], PairedDifference)
    assert isinstance(axial["Papers (COCO, 1x)"], Printed)
    ours = of_tasks.ablation().tables[1].rows[0].compared[0].ours
    low, high = ours.prediction()
    assert text(axial["Verdict"]) == f"agrees [{signed(low, 2)}, {signed(high, 2)}]"
    assert {run.task for run in tasks[1].runs} == {"detection"} and tasks[1].runs_in == "table8-paper"
    assert any(line.startswith("axial, Box AP: AAAI Table 8 ②: 43.4 %, +7.4 to ①") for line in tasks[1].places)


def test_differences_of_all_tasks_are_to_the_arms_that_the_specification_names(table8):
    section = compose.page("table8", [results(table8(together=["axial", "zero"]))], figures=False).sections[0]
    heads = [[text(row[0].value) for row in group if "Δ" in text(row[0].value)] for group in section.grid.groups]
    assert heads == [[], ["Δ to axial", "Δ to zero"], ["Δ to axial"]]
    with pytest.raises(SpecificationError, match="unknown arm 'zeros'"):
        results(table8(together=["zeros"])).ablation()


def test_a_further_metric_answers_the_papers_numbers_in_their_tables(table8):
    """As masks beside boxes: here the same runs stand beneath two columns of AAAI Table 4."""
    arms = {
        arm: {"label": arm, "published": [{"source": "AAAI", "table": "Table 4", "row": row, "task": "detection"}]}
        for arm, row in (("zero", "ATMNet-T"), ("axial", "ATMNet-S"))
    }
    papers = {"protocol": "paper", "label": "COCO, 1x", "metric": "ap_box", "head": "RetinaNet", "training": "COCO, 1x"}
    column = {"metric": "eval/ap_box", "label": "AP50", "published": "ap50_box"}
    tasks = {"detection": {"papers": papers, "columns": [column]}, "segmentation": {}}
    spec = table8(tasks=tasks, arms=arms)
    section = compose.page("aaai_table4", [results(spec)], figures=False).sections[0]
    record = {(each["row"], each["column"]): each for each in section.records}
    main, further = (record["ATMNet-T", f"1x, {name} box (%)"] for name in ("AP", "AP50"))
    assert main["ours"] == further["ours"] == pytest.approx(36.0) and main["papers"] != further["papers"]
    assert further["n"] == 3 and further["verdict"] == "excluded" and further["runs"] == main["runs"]
    assert record["ATMNet-T", "1x, AP75 box (%)"]["state"] == "not run"


def test_a_page_of_several_tasks_is_whole_in_every_format(table8, tmp_path):
    of_tasks = results(table8())
    page = compose.page("table8", [of_tasks])
    names = [drawing.name for drawing in page.sections[0].drawings]
    kinds = ("accuracy_flops", "learning_curves")
    expected = {f"{kind}{task}" for kind in kinds for task in ("", "_detection", "_segmentation")} | {"forest"}
    assert set(names) == expected and page.sections[0].warnings == ()
    forest = next(drawing for drawing in page.sections[0].drawings if drawing.name == "forest")
    assert forest.files["forest.csv"].decode().count("Active mixing and PEG: detection") == 2
    written = {path.name: path for path in files.write(page, tmp_path / "out")}
    markdown = written["report.md"].read_text()
    result, runs, *of_each = tables(markdown)
    assert len(of_each) == 3
    for block in (result, runs, *of_each):
        assert len({unescaped_bars(line) for line in block}) == 1
    assert runs[0].startswith("| Arm | Task | Seed |") and "| axial | detection | 0 |" in markdown
    assert '<th scope="col">Task</th>' in written["report.html"].read_text()
    table = pd.read_csv(tmp_path / "out" / "table.csv")
    assert set(zip(table["arm"], table["task"])) == {(arm, task) for task, arm in MEANS}
    names = macros.macros(page.sections[0])
    assert names["atmTableEightPaperAxialMean"] == "82.00"
    assert names["atmTableEightPaperDetectionAxialDelta"] == "+7.40"
    document = json.loads(terminal.to_json(of_tasks.ablation()))
    assert [task["task"] for task in document["tasks"]] == list(TASKS) and len(document["rows"]) == len(MEANS)


def test_verdicts_of_all_tasks_are_one_family(table8):
    of_tasks = results(table8())
    alone = build(of_tasks.spec, *only_first(of_tasks)).first
    together = of_tasks.ablation().first
    for single, several in zip(alone.rows, together.rows):
        if not single.is_baseline:
            assert several.judgement.p_holm > single.judgement.p_holm


def test_a_contrast_is_of_the_task_that_it_names(table8):
    given = [("detection", "axial", "zero"), ("detection", "axial_peg", "axial"), (None, "axial_peg", "axial")]
    spec = table8(contrasts=[{"task": task, "plus": [plus], "minus": [minus]} for task, plus, minus in given])
    ours = results(spec)
    own, detection, segmentation = ours.ablation().tables
    assert [len(table.contrasts) for table in (own, detection, segmentation)] == [1, 2, 0]
    tests = [each.difference.p_against(0.0, TOLERANCE) for table in (own, detection) for each in table.contrasts]
    assert own.contrasts[0].p_holm == tests[0]  # a family by itself
    assert [each.p_holm for each in detection.contrasts] == holm(tests[1:])
    assert detection.contrasts[0].difference.mean == pytest.approx(43.4 - 36.0)
    page = compose.page("table8", [ours], figures=False)
    sections = {section.name: section for section in page.sections}
    assert [name for name in sections if name.endswith("contrasts")] == [
        "table8-paper-contrasts", "table8-paper-detection-contrasts"
    ]  # fmt: skip
    section = sections["table8-paper-detection-contrasts"]
    assert section.grid.header[-1] == "Papers' Δ"
    assert [text(row[-1].value) for row in section.grid.rows] == ["+7.4", "+0.2"]
    assert [record["papers_difference"] for record in section.records] == [7.4, 0.2]


def test_a_contrast_of_an_unknown_task_is_refused(table8):
    with pytest.raises(SpecificationError, match="contrasts: unknown task 'detecton'; did you mean 'detection'"):
        table8(contrasts=[{"task": "detecton", "plus": ["axial"], "minus": ["zero"]}])


def only_first(of_tasks):
    """The same results with no downstream task."""
    plan = {**of_tasks.plan, "tasks": of_tasks.plan["tasks"][:1]}
    plan["runs"] = [run for run in plan["runs"] if run["task"] == "classification"]
    return collected_by_hand(plan, MEANS), plan


def test_tasks_of_different_code_are_no_mixture_but_runs_of_one_task_are(table8):
    of_tasks = results(table8())
    frame = of_tasks.collected.runs
    assert frame["code_fingerprint"].nunique() == 3 and of_tasks.ablation().mixed == ()
    frame.loc[(frame["task"] == "detection") & (frame["arm"] == "axial"), "code_fingerprint"] = "0dd"
    assert "different code" in of_tasks.ablation(mixed=True).mixed[0]


def test_downstream_runs_stand_beneath_the_printed_numbers_of_their_head(table8):
    of_tasks = results(table8())
    ablation = of_tasks.ablation()
    reproductions = [Reproduction(table, of_tasks.folder, "by hand") for table in ablation.tables]
    section = published.section(specification_files.load("aaai_table8"), OurResults(reproductions), figures=False)
    group = next(group for group in section.grid.groups if text(group[0][0].value) == "②")
    shown = {name: text(cell.value) for name, cell in zip(section.grid.header, group[1])}
    assert shown["RetinaNet, AP box (%)"].startswith("43.40 ± ") and shown["ADE20K, mIoU (%)"].startswith("45.60 ± ")
    assert shown["ImageNet, Top-1 (%)"].startswith("82.00 ± ") and section.cautions == ()
    assert {run.task for run in section.runs} == {"", "detection", "segmentation"}


def test_a_task_that_is_not_planned_is_named_and_an_arm_may_lack_one(table8):
    spec = table8()
    chosen = results(spec, tasks=["classification", "detection"], lacking=[("axial_peg", "detection")])
    section, _, of_detection = compose.page("table8", [chosen], figures=False).sections
    assert any("segmentation is not planned" in line for line in section.warnings)
    (record,) = [each for each in section.records if (each["arm"], each["task"]) == ("axial_peg", "detection")]
    assert (record["planned"], record["verdict"]) == (0, "–")
    assert [text(value) for value in cells_of(of_detection, "axial, PEG").values()][-5:] == [
        "–",
        "–",
        "43.6 (T)",
        "+7.6",
        "–",
    ]


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({"detection": {"metric": "ap"}}, "task detection: unknown key 'metric'"),
        (
            {"detection": {"papers": {"protocol": "paper", "label": "x", "metric": "ap_box", "head": "RetinaNett"}}},
            "task detection: no arm's published row prints ap_box of RetinaNett",
        ),
    ],
)
def test_faults_in_a_task_are_named(table8, tasks, message):
    with pytest.raises(SpecificationError, match=message):
        results(table8(tasks=tasks)).ablation()


def test_a_published_row_of_an_unknown_task_is_refused(table8):
    place = {"source": "AAAI", "table": "Table 8", "row": "①", "task": "detecton"}
    with pytest.raises(SpecificationError, match="arm zero: unknown task 'detecton'; did you mean 'detection'"):
        table8(arms={"zero": {"label": "zero", "published": [place]}})


def options(**given):
    return argparse.Namespace(**{"check": False, "json": False, "mixed": False, "fresh": False, **given})


@pytest.fixture
def by_hand(monkeypatch, tmp_path):
    """A sweep ``mine`` that no specification describes, with a network of timm; runs ``report=`` on it."""
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mine.yaml").write_text("arms: {plain: {}, foreign: {}}\n")
    monkeypatch.setattr(specification_files, "SWEEPS", tmp_path / "sweeps")
    models = {"plain": "nano", "foreign": "timm/resnet10t"}

    def report(name="mine", sweep="mine", arms=models, **given):
        plan = plan_of_tasks(sweep, list(arms), models=arms, tasks=["classification"], protocol="smoke")
        collected = collected_by_hand(plan, {("classification", arm): mean for arm, mean in zip(arms, (70.0, 71.5))})
        monkeypatch.setattr(commands, "collect", lambda *_: collected)
        assert commands.report(name, {}, options(**given), lambda *_: (plan, tmp_path, dict, dict, dict)) == 0
        return tmp_path / "reports" / f"{sweep}-smoke"

    return report


def test_a_sweep_without_a_specification_has_a_report(by_hand, capsys):
    folder = by_hand()
    page = (folder / "report.md").read_text()
    result, _ = tables(page)
    assert result[0] == "| Arm | Params (M) | FLOPs (G) | Top-1 (%) | Δ to Arm plain [95 % over seeds, these images] |"
    assert result[3].startswith("| Arm foreign | 5.400 | 1.100 | 71.50 ± ") and "| +1.50 [" in result[3]
    assert "†" in result[3]  # another network than the baseline's
    assert {path.stem for path in folder.glob("*.png")} == {"accuracy_flops", "forest", "learning_curves"}
    assert "Verdict" not in page and "Papers" not in page and "published" not in page.lower()
    assert "Arm foreign" in capsys.readouterr().out
    document = json.loads((by_hand(json=True), capsys.readouterr().out)[1])
    assert document["papers_protocol"] is None and {row["verdict"] for row in document["rows"]} == {"–"}


def test_a_protocol_that_a_specification_does_not_name_takes_the_metric_of_the_plan(by_hand, tmp_path):
    committed = (specification_files.SPECS / "resolution_384.yaml").read_text().splitlines(keepends=True)
    kept = [line for line in committed if not line.startswith(("  smoke:", "own_data:"))]
    assert len(kept) == len(committed) - 2
    (tmp_path / "fewer_protocols.yaml").write_text("".join(kept))
    folder = by_hand(str(tmp_path / "fewer_protocols.yaml"), "resolution_384", {"224": "l", "384": "l"})
    page = (folder.parent / "fewer_protocols-smoke" / "report.md").read_text()
    assert page.startswith("# Fine-tuning at a larger image size\n") and "| at 224 px |" in page
    assert "Top-1: `eval_ema/top1`" in page and "another protocol than this table's (`smoke`)" in page


def test_networks_of_others_are_never_taken_for_ours():
    assert variant("T") == variant("atmnet_t") == variant("ATMNet-T") == variant("T*") == variant("t")
    assert len({variant(name) for name in ("t", "timm/vit_t", "timm/convnext_t", "Swin-T", "swin_t")}) == 5


def test_an_unknown_report_names_the_nearest_of_reports_and_sweeps(by_hand):
    def refuse(*_):
        raise ConfigError("unknown sweep")

    for given in ({}, {"measured": "all"}):
        with pytest.raises(SpecificationError, match="unknown report 'mime'; did you mean 'mine'"):
            commands.report("mime", given, options(), refuse)
    with pytest.raises(ConfigError, match="unknown sweep"):
        commands.report("mine", {}, options(), refuse)  # the sweep exists, so something else is wrong


def test_a_sweep_of_any_other_place_has_a_report_if_it_can_be_planned(by_hand):
    assert (by_hand("elsewhere", "elsewhere") / "report.md").is_file()


def test_the_papers_verdict_needs_their_protocol(table8):
    """The same numbers under another protocol are compared by sign alone."""
    spec = table8()
    smoke = replace(results(spec), plan={**results(spec).plan, "protocol": "smoke"})
    verdicts = {
        (t.task, row.arm): [each.judgement.verdict for each in row.compared]
        for t in smoke.ablation().tables
        for row in t.rows
    }
    assert verdicts["detection", "axial"] == [Verdict.SAME_SIGN]
    assert verdicts["detection", "axial_peg"] == [Verdict.OPPOSITE_SIGN]
