"""Pages of offset interventions show each arm's fall, and what stands in the way of comparing runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from reports import specification_files
from reports.content import compose
from reports.content.compose import Results
from reports.content.text import text
from reports.formats import files, terminal
from reports.offsets import gathered, interventions
from results import archive
from results.collect import Collected, collect
from results.fingerprints import MixedFingerprints
from results.run_folders.measurement_file import MeasuredError
from tests.reports.test_offset_figures import make, plan
from tests.results.synthetic import OFFSETS, edit_json, intervened, interventions_file, make_plan, make_runs, run_id

TITLES = {"shuffled_tokens": "Shuffled across tokens", "zero": "Zero"}
METRIC = {"name": "top1", "label": "Top-1", "unit": "%", "decimals": 2}
EFFECT = {"title": "Zero", "metrics": {"top1": 30.0}, "differences": {"top1": -30.0}, "intervals": {}}
ARMS = {arm: OFFSETS[arm] for arm in ("zero", "axial")}


def write(run: Path, own: float, code: str = "c0de", **falls: float) -> Path:
    """A run's file as ``measurements/offsets/effects.py`` leaves it, written without it. falls: by intervention."""
    return interventions_file(run, own, falls, code=code, data="da7a", metric=METRIC, titles=TITLES)


def edit(file: Path, **changes: object) -> Path:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return file


def cells(section: object) -> list[list[str]]:
    return [[text(cell.value) for cell in row] for row in section.grid.rows]  # type: ignore[attr-defined]


def test_a_sweep_shows_the_mean_fall_of_each_arm_with_its_interval_over_seeds(tmp_path: Path) -> None:
    found: dict[str, Path | str] = {
        "axial-0": write(tmp_path / "axial-0", 60.0, shuffled_tokens=30.0, zero=40.0),
        "axial-1": write(tmp_path / "axial-1", 62.0, shuffled_tokens=34.0, zero=40.0),
        "token-0": write(tmp_path / "token-0", 50.0, shuffled_tokens=5.0),
        "token-1": "that run was not started yet",
        "zero-0": "this model predicts no offsets",
    }
    planned = plan(("zero", 0), ("axial", 0), ("axial", 1), ("token", 0), ("token", 1))
    section = interventions.of_sweep(planned, found)
    assert section.grid.header == ("Arm", "Top-1 (%), own offsets", *TITLES.values())
    # the t quantile of one degree of freedom is 12.706, the standard error sqrt(8) / sqrt(2)
    assert cells(section) == [
        ["axial *", "61.00 ± 12.71 (n = 2)", "−32.00 [−57.41, −6.59] (n = 2)", "−40.00 (n = 2, no interval)"],
        ["token *", "50.00 (1 of 2)", "−5.00 (n = 1, no interval)", "–"],
    ]
    row = next(r for r in section.records if (r["arm"], r["intervention"], r["metric"]) == ("axial", "zero", "top1"))
    assert (row["n"], row["own"], row["disturbed"], row["difference"]) == (2, 61.0, 21.0, -40.0)
    assert {r["metric"] for r in section.records} == {"top1", "loss"}
    assert [run.status for run in section.runs] == [
        "this model predicts no offsets", "measured", "measured", "measured", "that run was not started yet"
    ]  # fmt: skip
    assert "3 of 5 runs" in section.about and "50 images" in section.about
    _, files = interventions.compare(planned, found, tmp_path / "out")
    assert "−32.00 [−57.41, −6.59] (n = 2)" in (tmp_path / "out" / "report.md").read_text()
    assert (tmp_path / "out" / "table.csv") in files


def test_runs_that_cannot_be_averaged_are_refused(tmp_path: Path) -> None:
    planned = plan(("axial", 0), ("axial", 1))
    found: dict[str, Path | str] = {
        "axial-0": write(tmp_path / "axial-0", 60.0, zero=30.0),
        "axial-1": write(tmp_path / "axial-1", 62.0, code="else", zero=34.0),
    }
    with pytest.raises(MixedFingerprints, match="different code would be averaged"):
        interventions.of_sweep(planned, found)
    mixed = interventions.of_sweep(planned, found, mixed=True)
    assert "different code are averaged" in mixed.cautions[0]
    edit(write(tmp_path / "axial-1", 62.0, zero=34.0), metric=METRIC | {"label": "Top one"})
    with pytest.raises(MeasuredError, match="several metrics"):
        interventions.of_sweep(planned, found)
    with pytest.raises(MeasuredError, match="no run of ablation_offsets, protocol smoke, has offsets: none yet"):
        interventions.of_sweep(plan(("axial", 0)), {"axial-0": "none yet"})


def test_doubts_about_a_run_are_stated(tmp_path: Path) -> None:
    file = edit(
        write(tmp_path / "axial-0", 60.0, zero=30.0),
        otherwise={"top1": 60.5}, impossible={"shuffled_images": "Shuffled across images: maps differ"},
    )  # fmt: skip
    for section in (
        interventions.of_run(interventions.read(file)),
        interventions.of_sweep(plan(("axial", 0)), {"axial-0": file}),
    ):
        assert section.cautions == (
            "axial-0: Shuffled across images: maps differ.",
            "axial-0, with its own offsets: top1 is 60.0 here, but 60.5 in its summary.",
        )
        assert any("No network saw such offsets in training" in line for line in section.legend)


def test_a_run_shows_intervals_over_images(tmp_path: Path) -> None:
    file = write(tmp_path / "axial-0", 60.0, zero=30.0, shuffled_tokens=0.0)
    about = json.loads(file.read_text())
    about["interventions"]["shuffled_tokens"]["intervals"] = {}
    edit(file, interventions=about["interventions"])
    assert cells(interventions.of_run(interventions.read(file))) == [
        ["Own offsets", "60.00", "–"],
        ["Zero", "30.00", "−30.00 [−31.00, −29.00]"],
        ["Shuffled across tokens", "60.00", "0.00"],
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"interventions": []}, "it has a wrong interventions"),
        ({"interventions": {"zero": {"title": "Zero"}}}, "zero has no metrics"),
        ({"undisturbed": {"loss": 1.0}}, "it does not have top1 throughout"),
        ({"metric": {"name": "top1"}}, "metric has no label"),
        ({"trained": {}}, "trained has no code_fingerprint"),
        ({"undisturbed": {"top1": 60.0, "loss": "1"}}, "undisturbed: loss is '1', not a number"),
        (
            {"interventions": {"zero": EFFECT | {"intervals": {"top1": [1.0]}}}},
            "zero: the interval of top1 is not two n",
        ),
        (
            {"interventions": {"zero": EFFECT | {"differences": {"top1": 1.0, "top5": 1.0}}}},
            "zero has differences of met",
        ),
    ],
)
def test_an_edited_file_is_named(tmp_path: Path, changes: dict, message: str) -> None:
    file = edit(write(tmp_path / "axial-0", 60.0, zero=30.0), **changes)
    with pytest.raises(MeasuredError, match=rf"interventions\.json cannot be read \({message}.*\); --fresh measures"):
        interventions.read(file)
    file.write_text("{")
    with pytest.raises(MeasuredError, match=r"interventions\.json cannot be read"):
        interventions.read(file)


@pytest.fixture
def sweep(tmp_path: Path) -> tuple[dict, Path]:
    """(plan, runs_dir) of two arms and three seeds, with interventions on the runs of one arm."""
    planned, runs_dir = plan_of(ARMS), tmp_path / "runs"
    make_runs(runs_dir, planned, ARMS, examples=False)
    for seed in range(3):
        intervened(runs_dir / run_id("axial", seed), 60.0 + seed, zero=30.0, shuffled_tokens=3.0 * seed)
    return planned, runs_dir


def plan_of(arms: dict) -> dict:
    return make_plan(arms) | {"left_out": [arm for arm in OFFSETS if arm not in arms]}


def page_of(
    planned: dict, collected: Collected, folder: Path, label: str | None = None, report: str = "ablation_offsets"
):
    spec = specification_files.of_sweep("ablation_offsets")
    return compose.page(report, [Results(spec, collected, planned, folder, label)], figures=False)


def test_a_sweeps_report_shows_those_of_its_runs_from_folders_and_from_committed_results(
    sweep: tuple[dict, Path], tmp_path: Path
) -> None:
    planned, runs_dir = sweep
    collected = collect(planned, runs_dir)
    found: dict[str, Path | str] = {
        entry["run"]: collected.interventions.get(entry["run"], "not measured") for entry in planned["runs"]
    }
    expected = interventions.of_sweep(planned, found)
    archive.write(collected, tmp_path / "m", planned, title="t", date="d")
    shown = {
        "ablation_offsets-smoke": page_of(planned, collected, runs_dir),
        "m": page_of(planned, archive.read(tmp_path / "m"), tmp_path / "m", "m"),
    }
    for name, page in shown.items():
        table, section = page.sections
        assert (page.name, page.title, table.name) == (name, table.title, name)
        assert (section.name, section.title) == (f"{name}-interventions", f"Offset interventions: {name}")
        assert section.grid == expected.grid and section.records == expected.records
        assert (section.about, section.cautions) == (expected.about, expected.cautions)
        assert [run.status for run in section.runs] == ["not measured"] * 3 + ["measured"] * 3
        written = {path.relative_to(tmp_path / name).as_posix() for path in files.write(page, tmp_path / name)}
        tables = {"table.csv", "table.tex", "table_alone.tex"}
        assert written == {"report.md", "report.html", "macros.tex", *tables, *(f"{section.name}/{t}" for t in tables)}
        markdown, html = ((tmp_path / name / file).read_text() for file in ("report.md", "report.html"))
        for text_of_page in (markdown, html):
            assert text_of_page.count("61.00 ± 2.48 (n = 3)") == text_of_page.count("Shuffled across tokens") == 1
        assert markdown.startswith(f"# {table.title}\n") and f"\n## {section.title}\n" in markdown
        assert f'href="{section.name}/table.csv"' in html and 'href="table.csv"' in html


def test_a_report_without_any_has_one_section(sweep: tuple[dict, Path]) -> None:
    planned, runs_dir = sweep
    shutil.rmtree(runs_dir / run_id("axial", 0))
    for seed in (1, 2):
        shutil.rmtree(runs_dir / run_id("axial", seed) / "offsets")
    assert len(page_of(planned, collect(planned, runs_dir), runs_dir).sections) == 1


def test_files_of_other_trainings_and_damaged_ones_are_named_and_hide_nothing_else(sweep: tuple[dict, Path]) -> None:
    planned, runs_dir = sweep
    whole = page_of(planned, collect(planned, runs_dir), runs_dir).sections[0]
    (runs_dir / run_id("axial", 1) / "weights.safetensors").write_bytes(b"of another training")
    (runs_dir / run_id("axial", 2) / "offsets" / "interventions.json").write_text("{")
    table, section = page_of(planned, collect(planned, runs_dir), runs_dir).sections
    assert table.grid == whole.grid and len(table.warnings) == len(whole.warnings) + 2
    states = [run.status for run in section.runs][3:]
    assert states[0] == "measured" and states[1].startswith("measured of another training: its weights are not")
    assert states[2].startswith("offsets/interventions.json cannot be read (")
    assert cells(section)[0][1:] == ["60.00 (1 of 3)", "−30.00 (n = 1, no interval)", "0.00 (n = 1, no interval)"]
    (runs_dir / run_id("axial", 0) / "offsets" / "interventions.json").unlink()
    (alone,) = page_of(planned, collect(planned, runs_dir), runs_dir).sections
    assert alone.grid == whole.grid and sum("its interventions are left out" in each for each in alone.warnings) == 2


def test_those_of_an_excluded_run_do_not_count(sweep: tuple[dict, Path]) -> None:
    planned, runs_dir = sweep
    edit_json(intervened(runs_dir / run_id("axial", 1), 99.0, zero=1.0), created="later")
    (runs_dir / run_id("axial", 1) / "excluded.json").write_text(json.dumps({"because": "ECC errors"}))
    _, section = page_of(planned, collect(planned, runs_dir), runs_dir).sections
    assert f"Run {run_id('axial', 1)} is left out: ECC errors." in section.cautions
    assert cells(section)[0][1].startswith("61.00 ± ") and "(2 of 3)" in cells(section)[0][1]
    assert [run.status for run in section.runs][4] == "excluded: ECC errors"


def test_runs_that_cannot_be_compared_are_a_sentence_and_doubts_are_stated(sweep: tuple[dict, Path]) -> None:
    planned, runs_dir = sweep
    file = runs_dir / run_id("axial", 1) / "offsets" / "interventions.json"
    edit(file, data_fingerprint="other images")
    _, section = page_of(planned, collect(planned, runs_dir), runs_dir).sections
    assert section.cautions == (
        f"Interventions were judged on different data (1mages: {run_id('axial', 0)}, {run_id('axial', 2)}; "
        f"other images: {run_id('axial', 1)}).",
    )
    edit(file, metric=json.loads(file.read_text())["metric"] | {"label": "Top one"})
    table, section = page_of(planned, collect(planned, runs_dir), runs_dir).sections
    assert table.grid and section.grid is None and "several metrics" in section.cautions[0]


def test_a_page_shows_them_once_and_json_has_their_rows(sweep: tuple[dict, Path]) -> None:
    planned, runs_dir = sweep
    collected = collect(planned, runs_dir)
    page = page_of(planned, collected, runs_dir, report="paper")
    assert [s.name for s in page.sections if "interventions" in s.name] == ["ablation_offsets-smoke-interventions"]
    alone = page_of(planned, collected, runs_dir, report="learned_offsets")
    assert [s.name for s in alone.sections] == ["learned_offsets-ablation_offsets-smoke-interventions"]
    results = Results(specification_files.of_sweep("ablation_offsets"), collected, planned, runs_dir)
    records = page_of(planned, collected, runs_dir).sections[1].records
    document = json.loads(terminal.to_json(results.ablation(), {"interventions": records}))
    assert [row["intervention"] for row in document["interventions"]] == ["zero", "zero", *["shuffled_tokens"] * 2]
    assert "interventions" not in json.loads(terminal.to_json(results.ablation()))


@pytest.mark.slow
def test_they_are_gathered_beside_the_offsets_of_a_sweep(sweep: tuple[dict, Path]) -> None:
    planned, runs_dir = sweep
    spec, name = specification_files.load("learned_offsets"), "ablation_offsets-smoke"
    edit(runs_dir / run_id("axial", 1) / "offsets" / "interventions.json", name="axial-7")

    def gather(*collected: Collected) -> list:
        of_sweep = dict(zip([name], collected))
        return list(gathered.sections(spec, {name: (planned, runs_dir)}, of_sweep, mixed=False, figures=False))

    (alone,) = gather(collect(planned, runs_dir))
    assert alone.name == f"learned_offsets-{name}-interventions" and alone.question == spec.question
    assert [run.status for run in alone.runs][3:] == ["measured", "measured of another run, axial-7", "measured"]
    assert cells(alone)[0][1].endswith("(2 of 3)")
    run = run_id("axial", 2)
    make(runs_dir / "made" / "offsets", layers=4, name=run)
    for file in (runs_dir / "made" / "offsets").iterdir():
        file.rename(runs_dir / run / "offsets" / file.name)
    edit_json(runs_dir / run / "provenance.json", code_fingerprint="c0de", data_fingerprint="da7a")
    edit(
        runs_dir / run / "offsets" / "interventions.json",
        trained={"code_fingerprint": "c0de", "data_fingerprint": "da7a"},
    )
    *_, refused = both = gather(collect(planned, runs_dir))
    assert [section.name for section in both] == [alone.name.removesuffix("-interventions"), alone.name]
    assert refused.grid is None and "different code would be averaged" in refused.cautions[0]
    assert [section.name for section in gather()] == [alone.name.removesuffix("-interventions")]
    for seed in range(3):
        (runs_dir / run_id("axial", seed) / "offsets" / "interventions.json").write_text("")
    (runs_dir / run / "offsets" / "about.json").unlink()
    (nothing,) = gather(collect(planned, runs_dir))
    assert "Nothing has been measured yet" in nothing.about and len(nothing.cautions) == 3
