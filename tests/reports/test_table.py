"""The table holds our numbers, the papers' and the verdict, and names whatever is missing."""

from __future__ import annotations

import shutil

import pytest
import yaml
from scipy import stats

from reports import specification
from reports.content import ablation, table, words
from reports.content.text import signed
from reports.content.text import text as text_of
from results.collect import collect
from results.fingerprints import MixedFingerprints
from results.statistics import Verdict
from tests.results.synthetic import OFFSETS, PEG, edit_json, make_plan, make_run, make_runs, run_id, without_tasks


def build(plan, runs_dir, name="ablation_offsets", **options):
    return table.build(specification.of_sweep(name), collect(plan, runs_dir), plan, **options)


def row(made, arm):
    return next(r for r in made.first.rows if r.arm == arm)


def text(made, arm):
    """The texts of an arm's cells in the table of one task."""
    cells = ablation.grid(made, {}).rows[[r.arm for r in made.first.rows].index(arm)]
    return dict(
        zip(
            ("arm", "m", "g", "result", "gap", "papers", "papers_gap", "verdict"),
            (text_of(cell.value) for cell in cells),
            strict=True,
        )
    )


@pytest.fixture
def partial(finished, tmp_path):
    """A copy of the finished sweep to break."""
    plan, runs_dir, _ = finished
    shutil.copytree(runs_dir, tmp_path / "runs", ignore=shutil.ignore_patterns("*.npz"))
    return plan, tmp_path / "runs"


def test_a_complete_table(finished):
    plan, _, collected = finished
    made = table.build(specification.of_sweep("ablation_offsets"), collected, plan)
    assert [r.arm for r in made.first.rows] == list(OFFSETS)
    axial = text(made, "axial")
    values = collected.finals("eval/token_accuracy").query("arm == 'axial'")["value"]
    half = stats.t.ppf(0.975, 2) * stats.sem(values)
    assert axial["result"] == f"{values.mean():.2f} ± {half:.2f} (n = 3)"
    assert axial["m"] == "1.235" and axial["g"] == "0.152"
    assert axial["gap"].startswith("+26.") and axial["gap"].endswith("(n = 3)")
    assert axial["papers"] == "82.0 (T) / 79.7 (xT)" and axial["papers_gap"] == "+2.7" and axial["verdict"] == "agrees"
    zero = text(made, "zero")
    assert (zero["gap"], zero["papers"], zero["papers_gap"], zero["verdict"]) == ("baseline", "79.3 (T)", "–", "–")
    assert text(made, "token")["papers_gap"] == "+2.0"
    joint = text(made, "joint")
    assert (joint["papers"], joint["papers_gap"], joint["verdict"]) == ("below xT", "–", "–")
    assert made.warnings == () and made.mixed == ()


def test_a_difference_to_another_arm_is_judged_against_that_arm(finished):
    plan, _, collected = finished
    made = table.build(specification.of_sweep("ablation_offsets"), collected, plan)
    x3 = row(made, "axial_x3")
    assert text(made, "axial_x3")["papers_gap"] == "+0.2 to axial"
    assert x3.judged.ours.mean == pytest.approx(x3.mean - row(made, "axial").mean)
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
    assert row(made, "axial").verdict is Verdict.NOT_JUDGED
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
    made = table.build(specification.of_sweep("ablation_offsets"), collected, plan)
    legend = " ".join(words.legend(made))
    assert "another protocol" in legend and "by sign alone" in legend
    assert ablation.grid(made, {}).header[5] == "Papers (ImageNet-1K, 300 epochs)"


@pytest.mark.parametrize(
    ("protocol", "model", "verdict"),
    [
        ("paper", "t", Verdict.CONTRADICTS),
        ("paper", "xt", Verdict.AGREES),
        ("smoke", "t", Verdict.AGREES),
        ("tiny", "t", Verdict.AGREES),
    ],
)
def test_sizes_count_on_the_papers_protocol_and_model_only(tmp_path, protocol, model, verdict):
    """+27 points against the papers' +2.7: of ATMNet-T a contradiction, of another model or protocol the same sign."""
    plan = make_plan(protocol=protocol, model=model)
    metric = specification.of_sweep("ablation_offsets").metric(protocol, {"name": ""}).metric
    make_runs(tmp_path, plan, metric=metric, examples=False)
    made = build(plan, tmp_path)
    assert row(made, "axial").verdict is verdict
    assert row(made, "axial").judged.same_protocol is (verdict is Verdict.CONTRADICTS)
    assert ("another protocol" in " ".join(words.legend(made))) is (protocol != "paper")


def test_the_peg_table(tmp_path):
    plan = make_plan(PEG, sweep="ablation_peg")
    make_runs(tmp_path, plan, PEG, examples=False)
    made = build(plan, tmp_path, "ablation_peg")
    assert text(made, "stage_nopeg")["papers"] == "82.0 (T) / 81.8 (T)"
    assert text(made, "stage_peg")["papers_gap"] == "0.0" and text(made, "k2_peg")["papers_gap"] == "0.0"
    assert text(made, "k2_nopeg")["papers"] == "–" and text(made, "k2_nopeg")["verdict"] == "–"


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
    arms = {("axail" if arm == "axial" else arm): value for arm, value in OFFSETS.items()}
    with pytest.raises(specification.SpecificationError, match="unknown arm 'axial'; did you mean 'axail'"):
        build(make_plan(arms), tmp_path)


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
    expected = ["ablation_offsets", "ablation_peg", "ablation_v1", "resolution_384", "variants"]
    assert specification.names("sweep") == expected
    for name in specification.names("sweep"):
        spec = specification.of_sweep(name)
        plan = make_plan(dict.fromkeys(spec.arms), sweep=spec.sweep)
        for protocol in spec.protocols:
            assert len(build({**plan, "protocol": protocol}, tmp_path, name).first.rows) == len(spec.arms)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"titel": "x"}, "unknown key 'titel'; did you mean 'title'"),
        ({"title": None}, "title missing"),
        ({"figures": [{"kind": "raech"}]}, "unknown figure 'raech'; did you mean 'reach'"),
        ({"arms": {"zero": {"lable": "zero"}}}, "arm zero: unknown key 'lable'"),
        ({"papers": {"protocol": "paper"}}, "papers: label, metric missing"),
    ],
)
def test_faults_of_a_specification_are_one_line(tmp_path, monkeypatch, change, message):
    content = yaml.safe_load((specification.SPECS / "ablation_peg.yaml").read_text())
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump({**content, **change}, allow_unicode=True))
    monkeypatch.setattr(specification, "SPECS", tmp_path)
    with pytest.raises(specification.SpecificationError) as refused:
        specification.of_sweep("broken")
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_an_unknown_report_is_refused_with_the_nearest_name():
    with pytest.raises(specification.SpecificationError, match="did you mean 'ablation_offsets'"):
        specification.of_sweep("ablation_offset")


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
    assert row(made, "axial_x3").verdict is Verdict.NOT_RUN  # the arm it is compared with was left out
    assert text(made, "axial_x3")["papers_gap"] == "+0.2 to axial"
    assert any("compared here with axial" in line for line in words.places(made))
