"""Contrasts: differences of a specification's choice, tested as a family of their own."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import yaml
from scipy import stats

from reports import specification_files
from reports.content import ablation, build_table, compose, contrasts, words
from reports.content.text import text
from reports.content.values import NOTHING
from reports.formats import files
from reports.specification import Contrast, FurtherMetric, Metric, SpecificationError
from results import archive
from results.fingerprints import MixedFingerprints
from results.statistics.verdicts import holm

ACCURACY = "eval/token_accuracy"
ONE = Contrast(("axial",), ("token",))
TWO = Contrast(("axial",), ("zero",))
INTERACTION = Contrast(("axial_peg", "zero"), ("zero_peg", "axial"))
BOTH = Contrast(("axial", "zero"), ("token", "axial_x3"), "what it is called", tested=False)


def made(finished, *given, columns=(), **metric):
    plan, _, collected = finished
    spec = replace(specification_files.of_sweep("ablation_offsets"), contrasts=given, columns=columns)
    own = spec.protocols[plan["protocol"]]
    spec = replace(spec, protocols={plan["protocol"]: Metric(**{**vars(own), **metric})})
    return build_table.build(spec, collected, plan)


def values(finished):
    finals = finished[2].finals("eval/token_accuracy")
    return {arm: rows.sort_values("seed")["value"].to_numpy() for arm, rows in finals.groupby("arm", observed=True)}


def test_each_is_the_paired_t_test_corrected_over_those_that_are_tested(finished):
    one, two, both = made(finished, ONE, TWO, BOTH).first.contrasts
    of = values(finished)
    p_values = [stats.ttest_rel(of["axial"], of[arm]).pvalue for arm in ("token", "zero")]
    assert [one.p_holm, two.p_holm] == pytest.approx(holm(p_values))
    assert both.p_holm is None and both.label == "what it is called"
    assert one.difference.differences == pytest.approx(of["axial"] - of["token"])
    by_seed = of["axial"] + of["zero"] - of["token"] - of["axial_x3"]
    assert both.difference.differences == pytest.approx(by_seed)
    low, high = stats.t.interval(0.95, 2, by_seed.mean(), stats.sem(by_seed))
    assert (both.difference.low, both.difference.high) == pytest.approx((low, high))


def test_the_rows_own_differences_are_corrected_as_without_contrasts(finished):
    with_some, without = made(finished, ONE, TWO), made(finished)
    assert [r.judgement for r in with_some.first.rows] == [r.judgement for r in without.first.rows]


@pytest.mark.parametrize(
    "margin, word",
    [(None, "different"), (1000.0, "different, equivalent"), (1e-6, "different")],
)
def test_what_is_resolved(finished, margin, word):
    table = made(finished, TWO, BOTH, margin=margin).first
    assert [contrasts.judged(table, row) for row in table.contrasts] == [word, ""]
    unresolved = replace(table.contrasts[0], p_holm=0.06)
    expected = "equivalent" if margin == 1000 else "not resolved"
    assert contrasts.judged(table, unresolved) == expected


def test_a_page_shows_them_after_the_table(finished, tmp_path):
    plan, runs_dir, collected = finished
    spec = replace(specification_files.of_sweep("ablation_offsets"), contrasts=(ONE, BOTH))
    page = compose.page(spec, [compose.Results(spec, collected, plan, runs_dir)], figures=False)
    section = page.sections[1]
    assert section.name == "ablation_offsets-smoke-contrasts"
    label, difference, _, p, resolved = (text(cell.value) for cell in section.grid.rows[0])
    arms = {row.arm: row.label for row in compose.Results(spec, collected, plan, runs_dir).ablation().first.rows}
    assert label == f"{arms['axial']} − {arms['token']}"
    assert difference.endswith("(n = 3)") and float(p.removeprefix("< ")) < 0.05 and resolved == "different"
    assert [text(cell.value) for cell in section.grid.rows[1][3:]] == ["–", "–"]
    assert "that are tested, 1 in number" in section.legend[0]
    files.write(page, tmp_path)
    rows = (tmp_path / section.name / "table.csv").read_text().splitlines()
    assert rows[0].startswith("contrast,plus,minus,") and len(rows) == 3


def test_those_with_arms_that_are_not_planned_are_left_out(finished):
    plan, _, collected = finished
    arms = [arm for arm in plan["arms"] if arm["name"] != "token"]
    smaller = {**plan, "arms": arms, "left_out": ["token"]}
    smaller["runs"] = [entry for entry in plan["runs"] if entry["arm"] != "token"]
    runs = collected.runs[collected.runs["arm"] != "token"]
    spec = replace(specification_files.of_sweep("ablation_offsets"), contrasts=(ONE, TWO))
    (left,) = build_table.build(spec, replace(collected, runs=runs), smaller).first.contrasts
    assert left.contrast == TWO


def test_a_further_metric_is_a_column_of_means(finished):
    accuracy = FurtherMetric(ACCURACY, "once more")
    table = made(finished, columns=(accuracy,))
    (further,) = table.first.further
    assert [row.interval for row in further.rows] == [row.interval for row in table.first.rows]
    grid = ablation.grid(table.first, {})
    assert grid.header[4] == "once more (%)" and grid.header[5].startswith("Δ to ")
    assert all(row[3].value == row[4].value and row[3].runs == row[4].runs for row in grid.rows)
    record = next(ablation.records(table.first, table.first.rows[0]))
    assert (record[ACCURACY], record[f"{ACCURACY}_n"]) == (record["mean"], record["n"])
    other = made(finished, columns=(replace(accuracy, protocol="tiny"),))
    assert other.first.further == ()


def test_a_further_metric_is_of_the_family_of_tests_only_where_the_specification_says_so(finished):
    plan, runs_dir, collected = finished
    twice = collected.metrics.assign(metric=collected.metrics["metric"].astype(str).replace(ACCURACY, "eval/other"))
    both = replace(collected, metrics=pd.concat([collected.metrics, twice], ignore_index=True))
    other = FurtherMetric("eval/other", "once more")
    plain, beside, tested = (
        made((plan, runs_dir, both), columns=columns) for columns in ((), (other,), (replace(other, tested=True),))
    )
    p_values = [[row.judgement.p_holm for row in table.first.rows] for table in (plain, beside, tested)]
    assert p_values[0] == p_values[1] != p_values[2]
    assert all(row.judgement.p_holm is None for row in beside.first.further[0].rows)
    assert [row.judgement.p_holm for row in tested.first.further[0].rows][1:] != [None] * 6
    assert "without tests and verdicts here" in " ".join(words.legend(beside))
    assert "whose differences are tested, too: once more" in " ".join(words.legend(tested))


def test_a_further_metric_that_no_run_has_is_a_warning(finished):
    table = made(finished, columns=(FurtherMetric("eval/tokens", "none"),))
    assert any("unknown metric 'eval/tokens'" in warning for warning in table.warnings)
    assert all(row[4].value != NOTHING or row[3].value == NOTHING for row in ablation.grid(table.first, {}).rows)


def test_new_images_are_known_where_images_were_recorded():
    collected = archive.read(archive.folder("search-smoke"))
    spec = replace(specification_files.of_sweep("search"), contrasts=(Contrast(("axial",), ("zero",)), INTERACTION))
    table = build_table.build(spec, collected, archive.plan_of(collected)).first
    one, both = table.contrasts
    assert one.new_images == next(row.new_images for row in table.rows if row.arm == "axial")
    assert both.new_images.mean == pytest.approx(both.difference.mean, abs=1e-2)


@pytest.mark.parametrize(
    "contrast, message",
    [
        ({"plus": ["axial"], "minus": []}, "equally many"),
        ({"plus": ["axial"], "minus": ["axial"]}, "each of them once"),
        ({"plus": ["axial", "zero"], "minus": ["token"]}, "equally many"),
        ({"plus": ["axial"]}, "minus missing"),
        ({"plus": ["axial"], "minus": ["token"], "sign": 1}, "unknown key 'sign'"),
    ],
)
def test_what_is_no_contrast_is_refused(tmp_path, monkeypatch, contrast, message):
    content = yaml.safe_load((specification_files.SPECS / "search.yaml").read_text())
    (tmp_path / "search.yaml").write_text(yaml.safe_dump({**content, "contrasts": [contrast]}))
    monkeypatch.setattr(specification_files, "SPECS", tmp_path)
    with pytest.raises(SpecificationError, match=message):
        specification_files.of_sweep("search")


def test_an_arm_that_the_sweep_does_not_have_is_named(finished):
    with pytest.raises(SpecificationError, match="unknown arm 'axail'; did you mean 'axial'"):
        made(finished, Contrast(("axail",), ("zero",)))


def test_arms_that_change_the_data_are_compared_with_those_of_the_same_data_alone():
    collected = archive.read(archive.folder("probe_attacks-smoke"))
    plan, spec = archive.plan_of(collected), specification_files.of_sweep("probe_attacks")
    rows = {row.arm: row for row in build_table.build(spec, collected, plan).first.rows}
    assert rows["classes_axial"].difference and rows["classes_axial"].new_images
    for arm in ("cues_axial", "near_axial"):
        assert (rows[arm].difference, rows[arm].new_images) == (None, None)
    with pytest.raises(MixedFingerprints, match="different data"):
        build_table.build(replace(spec, own_data=False), collected, plan)
    runs = collected.runs.copy()
    first = runs.index[runs["arm"] == "near_axial"][0]
    for column, kind in (("data_fingerprint", "data"), ("code_fingerprint", "code")):
        other = runs.copy()
        other.loc[first, column] = "another"
        with pytest.raises(MixedFingerprints, match=f"different {kind}"):
            build_table.build(spec, replace(collected, runs=other), plan)
