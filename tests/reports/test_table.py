"""The table holds our numbers, the papers' and the verdict, and names whatever is missing."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from reports import specification, specification_files
from reports.content import ablation, build_table, words
from reports.content.text import signed
from reports.content.text import text as text_of
from results import papers
from results.collect import collect
from results.fingerprints import MixedFingerprints
from results.records import ImageRecord, pack, read_records
from results.statistics.images import mcnemar, new_images
from results.statistics.verdicts import Verdict
from run_format import RECORDS
from tests.results.synthetic import OFFSETS, PEG, edit_json, make_plan, make_run, make_runs, run_id, without_tasks


def build(plan, runs_dir, name="ablation_offsets", **options):
    return build_table.build(specification_files.of_sweep(name), collect(plan, runs_dir), plan, **options)


def row(made, arm):
    return next(r for r in made.first.rows if r.arm == arm)


def verdicts(made, arm):
    return [each.judgement.verdict for each in row(made, arm).compared]


def text(made, arm):
    """The texts of an arm's cells in the table of one task."""
    cells = ablation.grid(made.first, {}).rows[[r.arm for r in made.first.rows].index(arm)]
    to_control = ("to_control",) if made.first.control else ()
    names = ("arm", "m", "g", "result", *to_control, "gap", "papers", "papers_gap", "verdict")
    return dict(zip(names, (text_of(cell.value) for cell in cells), strict=True))


@pytest.fixture
def partial(finished, tmp_path):
    """A copy of the finished sweep to break."""
    plan, runs_dir, _ = finished
    shutil.copytree(runs_dir, tmp_path / "runs", ignore=shutil.ignore_patterns("*.npz"))
    return plan, tmp_path / "runs"


def test_a_complete_table(finished):
    plan, _, collected = finished
    made = build_table.build(specification_files.of_sweep("ablation_offsets"), collected, plan)
    assert [r.arm for r in made.first.rows] == list(OFFSETS)
    axial = text(made, "axial")
    values = collected.finals("eval/token_accuracy").query("arm == 'axial'")["value"]
    half = stats.t.ppf(0.975, 2) * stats.sem(values)
    assert axial["result"] == f"{values.mean():.2f} ± {half:.2f} (n = 3)"
    assert axial["m"] == "1.235" and axial["g"] == "0.152"
    assert axial["gap"].startswith("+26.") and axial["gap"].endswith("(n = 3)")
    assert axial["papers"] == "82.0 (T) / 79.7 (xT)" and axial["verdict"] == "same sign"
    (reference,) = row(made, "axial").compared
    spread = reference.ours.unpaired
    half = stats.t.ppf(0.975, spread.freedom) * spread.sd + 0.1  # both printed numbers are rounded
    assert axial["papers_gap"] == f"+2.7 [{signed(2.7 - half, 1)}, {signed(2.7 + half, 1)}]"
    zero = text(made, "zero")
    assert (zero["gap"], zero["papers"], zero["papers_gap"], zero["verdict"]) == ("baseline", "79.3 (T)", "–", "–")
    assert text(made, "token")["papers_gap"].startswith("+2.0 [")
    joint = text(made, "joint")
    assert (joint["papers"], joint["papers_gap"], joint["verdict"]) == ("below xT", "below to axial", "same sign")
    assert made.warnings == () and made.mixed == ()


def test_a_difference_to_another_arm_is_judged_against_that_arm(finished):
    plan, _, collected = finished
    made = build_table.build(specification_files.of_sweep("ablation_offsets"), collected, plan)
    x3 = row(made, "axial_x3")
    gap = text(made, "axial_x3")["papers_gap"]
    assert gap.startswith("+0.2 [") and gap.endswith("to axial")
    assert x3.compared[0].ours.mean == pytest.approx(x3.mean - row(made, "axial").mean)
    assert x3.difference.mean == pytest.approx(x3.mean - row(made, "zero").mean)
    assert any("compared here with axial: +0.30" in line for line in words.places(made))


def test_partial_seeds_and_single_pairs(partial):
    plan, runs_dir = partial
    shutil.rmtree(runs_dir / run_id("token", 1))
    for seed in (0, 2):
        shutil.rmtree(runs_dir / run_id("joint", seed))
        shutil.rmtree(runs_dir / run_id("axial", seed))
    made = build(plan, runs_dir)
    assert "(2 of 3)" in text(made, "token")["result"] and "(n = 2)" in text(made, "token")["gap"]
    assert text(made, "joint")["result"].endswith("(1 of 3)") and "±" not in text(made, "joint")["result"]
    assert text(made, "joint")["gap"].endswith("(n = 1, no interval)")
    assert verdicts(made, "axial") == [Verdict.NOT_JUDGED]
    assert row(made, "token").state == "not run"


def test_seeds_that_are_not_common_are_not_paired(partial):
    plan, runs_dir = partial
    shutil.rmtree(runs_dir / run_id("zero", 0))
    for seed in (1, 2):
        shutil.rmtree(runs_dir / run_id("token", seed))
    made = build(plan, runs_dir)
    assert row(made, "token").mean is not None and row(made, "token").difference is None
    assert text(made, "token")["gap"] == "–" and text(made, "token")["verdict"] == "not run"


def test_states_stand_where_results_will(partial):
    plan, runs_dir = partial
    for seed in range(3):
        shutil.rmtree(runs_dir / run_id("zero_mean", seed))
        for arm in ("token", "joint"):
            (runs_dir / run_id(arm, seed) / "summary.json").unlink()
        edit_json(runs_dir / run_id("joint", seed) / "state.json", state="failed", cause="non-finite loss at step 3")
    edit_json(runs_dir / run_id("token", 0) / "state.json", state="running", step=480)
    for seed in (1, 2):
        shutil.rmtree(runs_dir / run_id("token", seed))
    made = build(plan, runs_dir)
    assert text(made, "zero_mean")["result"] == "not run"
    assert text(made, "token")["result"] == "running 40 %; 2 × not run" and text(made, "token")["verdict"] == "not run"
    assert text(made, "joint")["result"] == "failed: non-finite loss at step 3"


def test_nothing_has_run(tmp_path):
    made = build(make_plan(), tmp_path)
    assert {text(made, arm)["result"] for arm in OFFSETS} == {"not run"}
    assert text(made, "axial")["verdict"] == "not run" and text(made, "zero_mean")["verdict"] == "–"
    assert text(made, "axial")["papers"] == "82.0 (T) / 79.7 (xT)"
    assert "0 of 21 runs have finished" in words.about(made)


def test_another_protocol_compares_signs_and_says_so(finished):
    plan, _, collected = finished
    made = build_table.build(specification_files.of_sweep("ablation_offsets"), collected, plan)
    legend = " ".join(words.legend(made))
    assert "another protocol" in legend and "by sign alone" in legend
    assert ablation.grid(made.first, {}).header[5] == "Papers (ImageNet-1K, 300 epochs)"


@pytest.mark.parametrize(
    ("protocol", "model", "verdict"),
    [
        ("paper", "t", Verdict.EXCLUDED),
        ("paper", "xt", Verdict.SAME_SIGN),
        ("smoke", "t", Verdict.SAME_SIGN),
        ("tiny", "t", Verdict.SAME_SIGN),
    ],
)
def test_sizes_count_on_the_papers_protocol_and_model_only(tmp_path, protocol, model, verdict):
    """+27 points against the papers' +2.7: of ATMNet-T excluded, of another model or protocol the same sign."""
    plan = make_plan(protocol=protocol, model=model)
    metric = specification_files.of_sweep("ablation_offsets").metric(protocol, {"name": ""}).metric
    make_runs(tmp_path, plan, metric=metric, examples=False)
    made = build(plan, tmp_path)
    assert verdicts(made, "axial") == [verdict]
    assert row(made, "axial").compared[0].same_protocol is (verdict is Verdict.EXCLUDED)
    assert ("another protocol" in " ".join(words.legend(made))) is (protocol != "paper")


def test_the_peg_table(tmp_path):
    plan = make_plan(PEG, sweep="ablation_peg")
    make_runs(tmp_path, plan, PEG, examples=False)
    made = build(plan, tmp_path, "ablation_peg")
    assert text(made, "stage_nopeg")["papers"] == "82.0 (T) / 81.8 (T)"
    against = {
        r.arm: [(each.number.row, each.difference, each.against) for each in r.compared] for r in made.first.rows
    }
    assert against["stage_nopeg"] == [("②", 2.7, "zero"), ("②", 2.5, "zero")]
    assert against["stage_peg"] == [("③", 2.5, "zero"), ("③", 0.0, "stage_nopeg")]
    assert against["k2_nopeg"] == [("②", 2.7, "zero")], "the other reading of AAAI's second row"
    assert against["k2_peg"] == [("③", 2.7, "zero"), ("③", 0.0, "stage_nopeg"), ("③", 0.0, "k2_nopeg")]
    assert text(made, "k2_peg")["verdict"].endswith(" / – / –"), "a printed 0.0 has no sign on another protocol"
    assert any("if its FLOPs are stale" in line for line in words.places(made))


def test_an_arm_of_another_model_is_marked(tmp_path):
    plan = make_plan()
    plan["arms"][4]["model"] = "t"
    make_runs(tmp_path, plan, examples=False)
    made = build(plan, tmp_path)
    assert text(made, "axial")["gap"].endswith("†") and not text(made, "token")["gap"].endswith("†")
    assert any(line.startswith("†") for line in words.legend(made))


def test_arms_the_specification_does_not_know_get_a_row(tmp_path):
    arms = {**OFFSETS, "new_arm": (90.0, 100, 0.15)}
    plan = make_plan(arms)
    make_runs(tmp_path, plan, arms, examples=False)
    made = build(plan, tmp_path)
    assert [r.arm for r in made.first.rows][-1] == "new_arm"
    assert text(made, "new_arm")["papers"] == "–" and "(n = 3)" in text(made, "new_arm")["result"]


def test_arms_the_plan_does_not_know_are_refused(tmp_path):
    plan, spec = make_plan(), specification_files.of_sweep("ablation_offsets")
    spec = replace(spec, arms={**spec.arms, "axail": spec.arms["axial"]})
    with pytest.raises(specification.SpecificationError, match="unknown arm 'axail'; did you mean 'axial'"):
        build_table.build(spec, collect(plan, tmp_path), plan)


def test_mixed_code_is_refused_unless_allowed(partial):
    plan, runs_dir = partial
    edit_json(runs_dir / run_id("axial", 1) / "provenance.json", code_fingerprint="0dd")
    with pytest.raises(MixedFingerprints):
        build(plan, runs_dir)
    assert "different code" in build(plan, runs_dir, mixed=True).mixed[0]


def test_a_metric_that_no_run_has_is_refused_and_one_that_some_lack_is_named(partial):
    plan, runs_dir = partial
    edit_json(runs_dir / run_id("axial", 1) / "summary.json", metrics={"eval/top1": 3.0})
    made = build(plan, runs_dir)
    assert len(row(made, "axial").values) == 2
    assert made.warnings == (f"{run_id('axial', 1)}: finished without eval/token_accuracy; not counted",)
    with pytest.raises(specification.SpecificationError, match="unknown protocol 'paperr'; did you mean 'paper'"):
        build({**without_tasks(plan), "protocol": "paperr"}, runs_dir)


def test_no_run_has_the_metric(tmp_path):
    plan = make_plan()
    make_run(tmp_path, plan, plan["runs"][0], 70, 60, 0.1, metric="eval/token_acc", examples=False)
    with pytest.raises(specification.SpecificationError, match="did you mean 'eval/token_acc'"):
        build(plan, tmp_path)


def test_every_specification_loads_and_its_numbers_were_published(tmp_path):
    ours = [
        "campaign_bccd",
        "campaign_camvid",
        "campaign_mixers",
        "campaign_tiny",
        "detection",
        "diagonal",
        "diagonal_mixers",
        "match",
        "match_mixers",
        "match_width",
        "mixers",
        "necks",
        "pair",
        "pair_mixers",
        "probe_attacks",
        "reach",
        "reach_mixers",
        "search",
        "search_mixers",
        "search_width",
        "segmentation",
    ]
    expected = sorted(["ablation_offsets", "ablation_peg", "ablation_v1", "resolution_384", "variants", *ours])
    assert specification_files.names("sweep") == expected
    for name in specification_files.names("sweep"):
        spec = specification_files.of_sweep(name)
        arms = spec.arms or dict.fromkeys(["zero", *(arm for figure in spec.figures for arm in figure.arms)])
        plan = make_plan(dict.fromkeys(arms), sweep=spec.sweep)
        for protocol in spec.protocols:
            assert len(build({**plan, "protocol": protocol}, tmp_path, name).first.rows) == len(arms)


def published(**place):
    row = {"source": "AAAI", "table": "Table 8", "row": "②"}
    return {"arms": {"zero": {"label": "zero", "published": [row | place]}}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"titel": "x"}, "unknown key 'titel'; did you mean 'title'"),
        ({"title": None}, "title missing"),
        ({"figures": [{"kind": "raech"}]}, "unknown figure 'raech'; did you mean 'reach'"),
        ({"arms": {"zero": {"lable": "zero"}}}, "arm zero: unknown key 'lable'"),
        ({"papers": {"protocol": "paper"}}, "papers: label, metric missing"),
        (published(baseline="①", side="over"), "arm zero, AAAI Table 8 ②: unknown side 'over'; did you mean"),
        (published(because="x", side="above"), "side above needs the row that it is above, as baseline"),
        (
            published(baseline="①", because="x"),
            "has a verdict, as it names a baseline, and a reason for none (because)",
        ),
    ],
)
def test_faults_of_a_specification_are_one_line(tmp_path, monkeypatch, change, message):
    content = yaml.safe_load((specification_files.SPECS / "ablation_peg.yaml").read_text())
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump({**content, **change}, allow_unicode=True))
    monkeypatch.setattr(specification_files, "SPECS", tmp_path)
    with pytest.raises(specification.SpecificationError) as refused:
        specification_files.of_sweep("broken")
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_an_unknown_report_is_refused_with_the_nearest_name():
    with pytest.raises(specification.SpecificationError, match="did you mean 'ablation_offsets'"):
        specification_files.of_sweep("ablation_offset")


@pytest.mark.parametrize(
    ("value", "written"), [(1.234, "+1.23"), (-1.234, "−1.23"), (0.0, "0.00"), (-0.001, "0.00"), (0.005, "+0.01")]
)
def test_signs(value, written):
    assert signed(value, 2) == written


def test_arms_left_out_of_a_sweep_have_no_row_and_are_no_error(tmp_path):
    chosen = {arm: OFFSETS[arm] for arm in ("zero", "axial_x3")}
    plan = make_plan(chosen) | {"left_out": [arm for arm in OFFSETS if arm not in chosen]}
    make_runs(tmp_path, plan, chosen)
    made = build(plan, tmp_path)
    assert [r.arm for r in made.first.rows] == ["zero", "axial_x3"]
    assert verdicts(made, "axial_x3") == [Verdict.NOT_RUN]  # the arm it is compared with was left out
    assert text(made, "axial_x3")["papers_gap"] == "+0.2 to axial"
    assert any("compared here with axial" in line for line in words.places(made))


@pytest.mark.parametrize(("source", "printed"), [("AAAI", "Table 8"), ("AAAI", "Fig. 2"), ("v1", "Table 7")])
def test_every_row_of_the_papers_ablations_has_a_verdict_or_a_reason_for_none(source, printed):
    """Of the classification numbers; those of heads that no recipe trains are *not run* on the papers' own pages."""
    rows = {number.row for number in papers.numbers(source, printed) if number.head == "classification"}
    places = [
        place
        for name in specification_files.names("sweep")
        for arm in specification_files.of_sweep(name).arms.values()
        for place in arm.published
        if (place.source, place.table) == (source, printed)
    ]
    assert rows == {place.row for place in places}
    assert all(bool(place.baseline) != bool(place.because) for place in places)


def test_the_papers_headline_is_judged_by_its_size(tmp_path):
    """+2.7 of AAAI Table 8: on the papers' protocol and model, against the arm without offsets, in both readings."""
    plan = make_plan(PEG, sweep="ablation_peg", protocol="paper", model="t")
    make_runs(tmp_path, plan, PEG, metric="eval_ema/top1", examples=False)
    made = build(plan, tmp_path, "ablation_peg")
    judged = [(r.arm, each) for r in made.first.rows for each in r.compared if each.difference == 2.7]
    assert [arm for arm, _ in judged] == ["stage_nopeg", "k2_nopeg", "k2_peg"]
    for _, each in judged:
        assert each.same_protocol and each.against == "zero" and each.judgement.papers_p_holm is not None


def test_an_arm_can_name_what_its_difference_is_to(partial, monkeypatch):
    plan, runs_dir = partial
    spec = specification_files.of_sweep("ablation_offsets")
    arms = {**spec.arms, "axial_s1": replace(spec.arms["axial_s1"], against="axial")}
    collected = collect(plan, runs_dir)
    made = build_table.build(replace(spec, arms=arms), collected, plan)
    s1 = row(made, "axial_s1")
    assert s1.difference.mean == pytest.approx(s1.mean - row(made, "axial").mean)
    assert text(made, "axial_s1")["gap"].endswith("(n = 3) to axial")
    (record,) = ablation.records(made.first, s1)
    assert (record["against"], record["difference"]) == ("axial", pytest.approx(s1.difference.mean, abs=1e-4))
    with pytest.raises(specification.SpecificationError, match="unknown arm 'axail'; did you mean 'axial'"):
        arms["axial_s1"] = replace(spec.arms["axial_s1"], against="axail")
        build_table.build(replace(spec, arms=arms), collected, plan)


def write_record(folder, record):
    """As the run's result, in its summary and its log too."""
    metrics = {"eval/token_accuracy": record.value()}
    (folder / RECORDS).write_bytes(pack({"eval/token_accuracy": record}))
    edit_json(folder / "summary.json", metrics=metrics)
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 1200, "epoch": 20, **metrics}) + "\n")


@pytest.fixture
def with_records(partial):
    """The smoke sweep whose runs recorded 500 images: each token right as often as the run's accuracy says."""

    def write(**wrong):
        plan, runs_dir = partial
        for entry in plan["runs"]:
            accuracy = json.loads((runs_dir / entry["run"] / "summary.json").read_text())["metrics"][
                "eval/token_accuracy"
            ]
            random = np.random.default_rng([entry["seed"], list(OFFSETS).index(entry["arm"])])
            images = wrong.get(entry["arm"], {}).get("images", 500)
            correct = random.binomial(20, accuracy / 100, images)
            record = ImageRecord.of(correct, 20, order=wrong.get(entry["arm"], {}).get("order", 7))
            write_record(runs_dir / entry["run"], record)
        collected = collect(plan, runs_dir)
        return build_table.build(specification_files.of_sweep("ablation_offsets"), collected, plan), collected

    return write


def test_differences_over_seeds_and_images_stand_beside_those_over_seeds(with_records):
    made, collected = with_records()
    axial, records = row(made, "axial"), {run: read_records(path) for run, path in collected.records.items()}
    of = {arm: [records[run_id(arm, seed)]["eval/token_accuracy"] for seed in range(3)] for arm in ("axial", "zero")}
    gaps = [a.contributions() - b.contributions() for a, b in zip(of["axial"], of["zero"])]
    assert axial.new_images == new_images(np.stack(gaps))
    assert axial.new_images.images == 500 and row(made, "zero").new_images is None
    grid = ablation.grid(made.first, {})
    shown = dict(zip(grid.header, (text_of(cell.value) for cell in grid.rows[list(OFFSETS).index("axial")])))
    interval = f"[{signed(axial.new_images.low, 2)}, {signed(axial.new_images.high, 2)}]"
    assert shown["Δ [95 % over seeds and images]"] == interval
    (record,) = ablation.records(made.first, axial)
    assert record["new_images_low"] == pytest.approx(axial.new_images.low, abs=1e-4)
    legend = " ".join(words.legend(made))
    assert "random effects of both; 500 images" in legend and "p < 0.05 over seeds and images" in legend


def test_images_are_compared_only_where_they_are_the_same(with_records):
    made, _ = with_records(token={"order": 8}, joint={"images": 499})
    assert row(made, "token").new_images is None and row(made, "joint").new_images is None
    assert row(made, "axial").new_images is not None
    assert "is not known" not in " ".join(words.legend(made))


def test_a_single_pair_is_judged_by_mcnemar(partial):
    plan, runs_dir = partial
    for entry in plan["runs"]:
        if entry["seed"]:
            shutil.rmtree(runs_dir / entry["run"])
            continue
        hits = np.random.default_rng(list(OFFSETS).index(entry["arm"])).random(400) < 0.5
        record = ImageRecord.of(hits)
        write_record(runs_dir / entry["run"], record)
    collected = collect(plan, runs_dir)
    made = build_table.build(specification_files.of_sweep("ablation_offsets"), collected, plan)
    hits = {
        arm: read_records(collected.records[run_id(arm, 0)])["eval/token_accuracy"].correct[:, 0] for arm in OFFSETS
    }
    axial = row(made, "axial")
    assert axial.mcnemar == pytest.approx(mcnemar(hits["axial"], hits["zero"])) and axial.new_images is None
    assert text(made, "axial")["gap"].endswith(f"(n = 1, McNemar p = {axial.mcnemar:.3f})")


def test_repeated_runs_give_the_noise_floor(finished):
    plan, _, collected = finished
    finals = collected.finals("eval/token_accuracy").set_index("run")["value"]
    runs = [run_id("axial", 0), run_id("zero", 1)]
    again = [finals[runs[0]] + 0.6, finals[runs[1]] - 0.2]
    repeats = pd.DataFrame(
        {"run": runs, "metric": "eval/token_accuracy", "value": again, "device": "x", "finished": "y"}
    )
    made = build_table.build(
        specification_files.of_sweep("ablation_offsets"), replace(collected, repeats=repeats), plan
    )
    expected = math.sqrt((0.6**2 + 0.2**2) / 2 / 2)
    assert made.first.repeats.sd == pytest.approx(expected) and made.first.repeats.freedom == 2
    assert f"differs with a deviation of {expected:.2f} points (2 repeats)" in " ".join(words.legend(made))
    assert any(f"repeats of one run ± {expected:.2f}" in name for name in ablation.grid(made.first, {}).header)
    assert not any("repeats" in name for name in ablation.grid(build(plan, Path("none")).first, {}).header)
