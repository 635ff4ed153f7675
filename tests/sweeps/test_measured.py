"""Runs that were collected count as done: a campaign can lose its run folders and go on."""

from __future__ import annotations

import csv
import json
import shutil

import pytest

import run as command_line
from experiments.folder.fingerprint import run_fingerprint
from experiments.folder.run_folder import RunFolder
from experiments.origin import PresentData
from results import archive, measured_runs
from results.plans import CollectError
from run_format import DONE, EXCLUDED, MEASURED, NOT_RUN
from sweeps import local, measured, repeat
from sweeps.plan import load
from sweeps.slurm.cluster import Cluster
from sweeps.slurm.launch import launch as submit
from sweeps.status import describe
from tests.ended import end
from tests.results.synthetic import edit_json
from tests.sweeps.conftest import SMALL
from tests.sweeps.test_sweeps import TINY, WORDS

SWEEP = ["ablation_offsets", "protocol=smoke", "arms=[zero,axial]"]
MEASURED_CODE = "c0de5eed00000001"


@pytest.fixture
def label_of(labels):
    """Writes measured results of some runs, as far as a launch looks at them."""

    def write(runs, name="m", code=None, data="", commit="", **more):
        labels.joinpath(name).mkdir(parents=True, exist_ok=True)
        (labels / name / "about.yaml").write_text("{}\n")
        lines = ["run,state,finished,device,code_fingerprint,data_fingerprint,commit"]
        lines += [f"{run.id},done,2031-01-01,cpu,{code or run_fingerprint(run.config)},{data},{commit}" for run in runs]
        (labels / name / "runs.csv").write_text("\n".join(lines) + "\n")
        for file, content in more.items():
            (labels / name / f"{file}.csv").write_text(content)

    return write


@pytest.fixture
def refuse_training(monkeypatch):
    """A launch is planned and recorded, but no run is started."""
    monkeypatch.setattr("sweeps.launcher.start", lambda *arguments: pytest.fail("a run was started"))


def states(plan, runs_dir, found=None):
    found = found or measured.find(plan, runs_dir)
    return {(row.arm, row.seed): row.state for row in describe(plan, runs_dir, None, found)}


def command(*words):
    assert command_line.main(list(words)) == 0


@pytest.mark.slow
def test_a_sweep_half_run_collected_and_lost_is_completed_with_the_numbers_of_one_piece(labels, tmp_path, capsys):
    runs_dir = tmp_path / "runs"
    words = [*WORDS, f"runs_dir={runs_dir}", "--jobs", "2"]
    here = [f"sweep={SWEEP[0]}", *SWEEP[1:]]
    command(*here, "seeds=[0]", *words)
    first = {path.parent.name: path.read_bytes() for path in runs_dir.glob("*/summary.json")}
    command(f"collect={SWEEP[0]}", *SWEEP[1:], "seeds=[0]", "into=half", *words[:-2])
    kept = tmp_path / "kept"
    kept.mkdir()
    for run in first:
        (runs_dir / run).rename(kept / run)
    capsys.readouterr()

    command(f"status={SWEEP[0]}", *SWEEP[1:], "seeds=[0,1]", *words[:-2])
    shown = capsys.readouterr().out
    assert (
        shown.count("measured     ") == 2 and "in results/measured/half" in shown and "2 measured, 2 not run" in shown
    )
    command(*here, "seeds=[0,1]", *words)
    shown = capsys.readouterr().out
    assert "2 runs are measured already, in results/measured/half; --fresh" in shown
    assert "2 of 4 runs to do" in shown and "2 of 4 runs done and 2 measured before" in shown
    second = {path.parent.name for path in runs_dir.glob("*/summary.json")}
    assert len(second) == 2 and not second & first.keys(), "only the other half was trained"

    command(f"report={SWEEP[0]}", *SWEEP[1:], "seeds=[0,1]", *words[:-2])
    page = runs_dir / "reports" / "ablation_offsets-smoke"
    table, text = (page / "table.csv").read_text(), (page / "report.md").read_text()
    assert "From results/measured/half: zero (seed 0); axial (seed 0)." in text
    assert "All other rows are from run folders." in text
    assert "4 of 4 runs have finished" in text
    command(f"collect={SWEEP[0]}", *SWEEP[1:], "seeds=[0,1]", "into=half", *words[:-2])
    merged = archive.read(labels / "half")
    assert set(merged.runs["state"]) == {DONE} and len(merged.runs) == 4

    for run in first:  # the sweep in one piece: the folders that were lost are back
        (kept / run).rename(runs_dir / run)
    command(f"report={SWEEP[0]}", *SWEEP[1:], "seeds=[0,1]", *words[:-2])
    assert (page / "table.csv").read_text() == table
    assert "results/measured" not in (page / "report.md").read_text()
    before = {path.name: path.read_bytes() for path in (labels / "half").iterdir() if path.is_file()}
    command(f"collect={SWEEP[0]}", *SWEEP[1:], "seeds=[0,1]", "into=half", *words[:-2])
    assert {path.name: path.read_bytes() for path in (labels / "half").iterdir() if path.is_file()} == before
    command(f"collect={SWEEP[0]}", *SWEEP[1:], "seeds=[0,1]", "into=whole", *words[:-2])
    for name in ("runs.csv", "metrics.csv", "curves.csv"):
        assert (labels / "whole" / name).read_bytes() == before[name], name

    capsys.readouterr()
    command(*here, "seeds=[0]", "--fresh", *words)
    assert "2 of 2 runs to do" in capsys.readouterr().out
    assert len(list((runs_dir / repeat.SET_ASIDE).iterdir())) == 2
    for run in first:
        edit_json(runs_dir / run / "summary.json", device="another processor")
    command(f"report={SWEEP[0]}", *SWEEP[1:], "seeds=[0,1]", *words[:-2])
    repeated = list(csv.DictReader((page / "table.csv").open()))
    assert {row.pop("repeats_sd") for row in repeated} == {"0.0"}, "the noise floor, on one processor"
    before_repeats = list(csv.DictReader(table.splitlines()))
    assert {row.pop("repeats_sd") for row in before_repeats} == {""}
    assert repeated == before_repeats, "a repeat changes no number"
    shown = [f"report={SWEEP[0]}", *SWEEP[1:], "seeds=[0,1]", *words[:-2], "--fresh"]
    command(*shown)
    text = (page / "report.md").read_text()
    assert "4 of 4 runs have finished" in text and "From results/measured" not in text
    token_accuracy = "have the same Object-token accuracy"
    assert f"the 4 runs here that results/measured/half has as well, 4 {token_accuracy}, to the last digit." in text
    command(f"collect={SWEEP[0]}", *SWEEP[1:], "seeds=[0,1]", "into=half", *words[:-2])
    repeats = archive.read(labels / "half").repeats
    assert set(repeats["run"]) == first.keys() and set(repeats["device"]) == {"another processor"}


def test_a_measured_run_counts_only_for_the_data_it_was_trained_on(label_of, images, tmp_path):
    small = {"data.root": str(images), "data.image_size": [32, 32], "model.name": "nano"}
    plan = load("ablation_offsets", "tiny", small, [0], arms=["zero"])
    label_of(plan.runs, data="of others")
    found = measured.find(plan, tmp_path)
    assert set(states(plan, tmp_path, found).values()) == {NOT_RUN}
    assert list(found.sentences([run.id for run in plan.runs])) == [
        "1 run is in results/measured/m, but of other data: trained again"
    ]
    label_of(plan.runs, data=PresentData().fingerprint(plan.runs[0].config))
    assert set(states(plan, tmp_path).values()) == {MEASURED}
    label_of(plan.runs, data="of others")
    shutil.rmtree(images)
    assert set(states(plan, tmp_path).values()) == {MEASURED}, "without any data here, none are others"


def test_a_measured_run_counts_only_for_the_code_that_a_launch_would_use(label_of, tmp_path, capsys, monkeypatch):
    plan = load("ablation_offsets", "smoke", SMALL, [0], arms=["zero", "axial"])
    label_of(plan.runs, code=MEASURED_CODE, commit="0123456789abcdef")
    found = measured.find(plan, tmp_path)
    assert states(plan, tmp_path, found) == {("zero", 0): NOT_RUN, ("axial", 0): NOT_RUN}
    assert list(found.sentences([run.id for run in plan.runs])) == [
        "2 runs are in results/measured/m, but of other code: trained again; --at 0123456789ab takes that code, so that "
        "they count"
    ]
    copy = tmp_path / "copy"  # the code of the measurement, as a commit or as the copy that the sweep began with
    monkeypatch.setattr("sweeps.snapshot.take_at", lambda runs_dir, commit: copy)
    computed = measured.run_fingerprint
    monkeypatch.setattr(
        measured, "run_fingerprint", lambda c, root: MEASURED_CODE if root == copy else computed(c, root)
    )
    found = measured.find(plan, tmp_path, at="COMMIT")
    assert set(states(plan, tmp_path, found).values()) == {MEASURED}
    monkeypatch.setattr("sweeps.run_code.sources", lambda plan, runs, *rest: {run.id: copy for run in runs})
    assert set(states(plan, tmp_path).values()) == {MEASURED}
    assert set(states(plan, tmp_path, measured.find(plan, tmp_path, other_code="force")).values()) == {NOT_RUN}


@pytest.mark.parametrize(
    ("edited", "says"),
    [
        ({"code": "c0de5eed00000002"}, f"code {MEASURED_CODE} there and c0de5eed00000002 here"),
        ({"data": "da7a"}, "data unknown there and da7a here"),
        ({"metrics": "81.5"}, "eval/top1 80.5 there and 81.5 here"),
        ({"metrics": "80.50"}, ""),
        ({"metrics": "81.5", "finished": "2031-01-02"}, ""),
    ],
)
def test_two_labels_that_state_one_measurement_differently_are_refused(edited, says, label_of, tmp_path, labels):
    plan = load(SWEEP[0], "smoke", seeds=[0], arms=["zero", "axial"])
    runs = list(plan.distinct().values())[:1]
    header = "run,step,epoch,metric,value,final"
    stated = {"code": MEASURED_CODE, "metrics": "80.5"}
    for name, facts in {"m": stated, "n": stated | edited}.items():
        row = f"{runs[0].id},9,1,eval/top1,{facts['metrics']},True"
        label_of(runs, name, facts["code"], facts.get("data", ""), metrics=f"{header}\n{row}\n")
        text = (labels / name / "runs.csv").read_text()
        (labels / name / "runs.csv").write_text(text.replace("2031-01-01", facts.get("finished", "2031-01-01")))
    if not says:
        assert len(measured_runs.find({runs[0].id})[runs[0].id]) == 2
        return
    with pytest.raises(CollectError) as refused:
        measured.find(plan, tmp_path)
    assert "results/measured/m and results/measured/n" in str(refused.value) and says in str(refused.value)
    assert runs[0].id in str(refused.value) and "\n" not in str(refused.value)


def test_the_codes_of_runs_are_not_computed_where_nothing_is_measured(labels, tmp_path, monkeypatch):
    monkeypatch.setattr(measured, "run_fingerprint", lambda *arguments: pytest.fail("computed"))
    assert measured.find(load("ablation_offsets", "smoke", SMALL, [0]), tmp_path).labels() == {}


def test_what_a_folder_holds_goes_before_what_was_measured(label_of, tmp_path):
    plan = load("ablation_offsets", "smoke", SMALL, [0], arms=["zero", "axial", "token", "joint"])
    label_of(plan.runs)
    folders = {run.arm: RunFolder(tmp_path / run.id) for run in plan.runs}
    for run in plan.runs:
        folders[run.arm].freeze(run.config)
    end(folders["zero"])
    folders["axial"].set_state("interrupted", cause="SIGTERM")
    folders["token"].set_state("failed", cause="a cause")
    with folders["joint"].claim():
        assert states(plan, tmp_path) == {
            ("zero", 0): DONE, ("axial", 0): MEASURED, ("token", 0): MEASURED, ("joint", 0): "running"
        }  # fmt: skip


def test_nothing_is_launched_where_everything_is_measured(label_of, refuse_training, tmp_path, capsys):
    words = ["protocol=smoke", "seeds=[0]", "arms=[zero,axial]", f"runs_dir={tmp_path / 'runs'}", *WORDS]
    plan = load("ablation_offsets", "smoke", TINY, [0], arms=["zero", "axial"])
    label_of(plan.runs)
    command("sweep=ablation_offsets", *words)
    assert "0 of 2 runs to do" in capsys.readouterr().out
    command("sweep=ablation_offsets", *words, "--dry-run", "--json")
    assert {row["state"] for row in json.loads(capsys.readouterr().out)["runs"]} == {MEASURED}
    command("sweep=ablation_offsets", *words, "--dry-run", "--fresh", "--json")
    assert {row["state"] for row in json.loads(capsys.readouterr().out)["runs"]} == {NOT_RUN}
    assert not list(tmp_path.glob("runs/*/config.yaml"))


@pytest.fixture
def grown(tmp_path, monkeypatch):
    """A plan of a chain: small, grown from it, late from that."""
    monkeypatch.setattr("sweeps.sweep_file.SWEEPS", tmp_path / "sweeps")
    (tmp_path / "sweeps").mkdir()
    arms = "late: {start_from: grown}, grown: {start_from: small}, small: "
    head = "recipes: {paper: imagenet, smoke: scenes}\nseeds: [0]\nbaseline: small\n"
    (tmp_path / "sweeps" / "grown.yaml").write_text(f"{head}arms: {{{arms}}}\n")
    return load("grown", "smoke", TINY | SMALL)


@pytest.mark.parametrize(
    ("known", "trained"),
    [
        (["small"], ["small", "grown", "late"]),
        (["small", "grown"], ["small", "grown", "late"]),
        (["small", "grown", "late"], []),
        (["grown", "late"], ["small"]),
    ],
)
def test_a_measured_parent_is_trained_again_where_a_run_needs_its_weights(known, trained, grown, label_of, tmp_path):
    label_of([run for run in grown.runs if run.arm in known])
    said: list[str] = []
    launch = local.prepare(grown, tmp_path / "runs", say=said.append)
    assert [run.arm for run in launch.runs] == trained
    again = [run for run in launch.runs if run.arm in known]
    assert sum("its weights are gone: trained again, as" in line for line in said) == len(again)
    for run in again:
        assert any(line.startswith(f"{run.id} is measured") for line in said)
    if known == ["small"]:
        (row,) = [row for row in describe(grown, tmp_path / "none", None, measured.find(grown, tmp_path / "none"))
                  if row.arm == "grown"]  # fmt: skip
        assert row.state == NOT_RUN and "whose weights are gone" in row.detail


def test_slurm_gets_what_is_not_measured_and_parents_that_are_needed(grown, label_of, tmp_path, slurm):
    runs = {run.arm: run for run in grown.runs}
    label_of([runs["small"], runs["grown"]])
    said: list[str] = []
    outcome = submit(grown, tmp_path / "runs", Cluster(), say=said.append)
    assert list(outcome.submitted) == [runs["small"].id, runs["grown"].id, runs["late"].id] and not outcome.measured
    assert sum("its weights are gone" in line for line in said) == 2
    assert ["dependency=afterok" in script for script in slurm.scripts] == [False, True, True]


def test_slurm_leaves_measured_runs_alone_unless_they_are_to_be_repeated(plan, label_of, tmp_path, slurm):
    label_of(plan.runs[:4])
    said: list[str] = []
    outcome = submit(plan, tmp_path, Cluster(), say=said.append)
    assert len(outcome.submitted) == 3 and len(outcome.measured) == 4 and outcome.exit_code == 0
    assert said[0] == "4 runs are measured already, in results/measured/m; --fresh trains them again"
    fresh = submit(plan, tmp_path / "other", Cluster(), say=said.append, fresh=True)
    assert len(fresh.submitted) == 7 and fresh.measured == []


def test_fresh_repeats_a_finished_run_only_once_it_is_collected(label_of, tmp_path):
    plan = load("ablation_offsets", "smoke", SMALL, [0], arms=["zero", "axial"])
    label_of(plan.runs)
    for run, finished in zip(plan.runs, ("2031-01-01", "2031-02-02")):
        folder = RunFolder(tmp_path / run.id)
        folder.freeze(run.config)
        end(folder, finished=finished)
        folder.write_json("provenance.json", {"code_fingerprint": run_fingerprint(run.config)})
    said: list[str] = []
    launch = local.prepare(plan, tmp_path, say=said.append, fresh=True)
    assert [run.id for run in launch.runs] == [plan.runs[0].id], "the other measurement is not in any label"
    assert launch.done == [plan.runs[1].id] and any("1 run is done but not collected" in line for line in said)
    assert json.loads((tmp_path / "set_aside" / f"{plan.runs[0].id}.1" / "summary.json").read_text())
    assert not RunFolder(tmp_path / plan.runs[0].id).finished()


def excluded_words(run, runs_dir, *more):
    return [f"exclude={run}", f"runs_dir={runs_dir}", *more]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of two seeds of two arms."""
    runs_dir = tmp_path_factory.mktemp("trained")
    plan = load("ablation_offsets", "smoke", TINY, [0, 1], arms=["zero", "axial"])
    assert local.launch(plan, runs_dir, jobs=2).exit_code == 0
    return runs_dir


@pytest.fixture
def broken(trained, labels, tmp_path, capsys):
    """Two seeds of two arms, trained and collected, and the id of a run of them."""
    runs_dir, words = tmp_path / "runs", [*SWEEP[1:], "seeds=[0,1]", *WORDS, f"runs_dir={tmp_path / 'runs'}"]
    shutil.copytree(trained, runs_dir)
    command(f"collect={SWEEP[0]}", *words, "into=m")
    plan = load("ablation_offsets", "smoke", TINY, [0, 1], arms=["zero", "axial"])
    capsys.readouterr()
    return plan, runs_dir, words, next(run.id for run in plan.runs if (run.arm, run.seed) == ("axial", 1))


@pytest.mark.slow
def test_an_excluded_run_is_named_by_every_page_and_is_not_trained_again(broken, labels, capsys):
    plan, runs_dir, words, run = broken
    value = json.loads((runs_dir / run / "summary.json").read_text())["metrics"]["eval/token_accuracy"]
    command(*excluded_words(run, runs_dir, "because=node 7: ECC errors"))
    out = capsys.readouterr().out
    assert f"{runs_dir / run}" in out and "results/measured/m" in out
    sentence = (
        f"Run {run} (axial, seed 1) is left out: node 7: ECC errors. Its own Object-token accuracy is {value:.2f} %."
    )
    for folder in (runs_dir, labels / "none"):
        command(f"report={SWEEP[0]}", *words[:-1], f"runs_dir={folder}")
        text = (folder / "reports" / "ablation_offsets-smoke" / "report.md").read_text()
        assert sentence in text and "excluded: node 7: ECC errors" in text and "(1 of 2)" in text
    assert archive.read(labels / "m").excluded == {run: "node 7: ECC errors"}
    command(f"sweep={SWEEP[0]}", *words)
    shown = capsys.readouterr()
    assert "0 of 4 runs to do" in shown.out and "1 runs are excluded" in shown.err
    assert states(plan, runs_dir)["axial", 1] == EXCLUDED
    shutil.rmtree(runs_dir / run)
    assert states(plan, runs_dir)["axial", 1] == EXCLUDED, "as the label has it"
    assert states(plan, runs_dir)["zero", 1] == DONE

    command(*excluded_words(run, runs_dir, "--undo"))
    assert states(plan, runs_dir)["axial", 1] == MEASURED and archive.read(labels / "m").excluded == {}
    assert not (labels / "m" / "excluded.csv").exists()


@pytest.mark.slow
def test_an_excluded_run_is_measured_again_on_request_and_the_first_value_stays_on_record(broken, labels, capsys):
    plan, runs_dir, words, run = broken
    first = json.loads((runs_dir / run / "summary.json").read_text())
    command(*excluded_words(run, runs_dir, "because=a broken node"))
    command(f"sweep={SWEEP[0]}", *words, "--retry-failed")
    assert states(plan, runs_dir)["axial", 1] == DONE
    edit_json(runs_dir / run / "summary.json", device="another processor")
    command(f"report={SWEEP[0]}", *words)
    command(f"collect={SWEEP[0]}", *words, "into=m")
    collected = archive.read(labels / "m")
    assert collected.excluded == {} and collected.runs.set_index("run").loc[run, "device"] == "another processor"
    (left_out,) = collected.exclusions
    assert (left_out.because, left_out.finished) == ("a broken node", first["finished"])
    command(f"report={SWEEP[0]}", *words)
    text = (runs_dir / "reports" / "ablation_offsets-smoke" / "report.md").read_text()
    assert f"A measurement of {run} (axial, seed 1) that was repeated is left out: a broken node. Its own" in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["because="], "why is it broken?"),
        ([], "why is it broken?"),
        (["because=x", "--undo"], "not both"),
        (["because=x", "inot=m"], "did you mean 'into'"),
        (["because=x", "into=n"], "unknown measured results 'n'"),
    ],
)
def test_exclusions_without_a_reason_or_with_unknown_words_are_refused(words, says, labels, label_of, tmp_path, capsys):
    label_of([])
    assert command_line.main(excluded_words("scenes-nano-s0-00000000", tmp_path, *words)) == 2
    assert says in capsys.readouterr().err


def test_an_unknown_run_is_refused_with_the_nearest(labels, tmp_path, capsys):
    plan = load("ablation_offsets", "smoke", SMALL, [0], arms=["zero"])
    folder = RunFolder(tmp_path / plan.runs[0].id)
    folder.freeze(plan.runs[0].config)
    assert command_line.main(excluded_words(plan.runs[0].id[:-1] + "x", tmp_path, "because=x")) == 2
    assert f"did you mean '{plan.runs[0].id}'" in capsys.readouterr().err
    assert command_line.main(excluded_words(plan.runs[0].id, tmp_path, "because=x")) == 2
    assert "has not begun" in capsys.readouterr().err


def test_results_of_another_clone_are_collected_by_the_path_of_their_folder(broken, labels, tmp_path, capsys):
    *_, words, _ = broken
    (labels / "m").rename(tmp_path / "clone")
    command("collect=ablation_offsets", "into=both", f"measured={tmp_path / 'clone'}")
    for path in (tmp_path / "clone").glob("*.csv"):
        assert (labels / "both" / path.name).read_bytes() == path.read_bytes()
    command("collect=ablation_offsets", *words, "into=both")
    capsys.readouterr()
    command("collect=ablation_offsets", "into=both", f"measured={tmp_path / 'clone'}")
    assert "holds all of this already" in capsys.readouterr().out
    for refused, says in ((["seeds=[0]"], "cannot change them"), (["--note", "x"], "notes of its own")):
        assert (
            command_line.main(["collect=ablation_offsets", "into=b", f"measured={tmp_path / 'clone'}", *refused]) == 2
        )
        assert says in capsys.readouterr().err


def test_measured_runs_that_another_sweep_does_not_plan_are_refused(broken, labels, capsys):
    for words, says in (
        (["collect=ablation_peg", *WORDS], "unknown arm 'stage_nopeg'"),  # its baseline was not run
        (["collect=ablation_v1", *WORDS, "train.lr=0.5"], "has no run of ablation_v1 as planned here"),
        (["collect=search", *WORDS, "arms=[zero,random]"], "has no run of search as planned here"),
    ):
        assert command_line.main([*words, "protocol=smoke", "seeds=[0,1]", "into=b", "measured=m"]) == 2, words
        assert says in capsys.readouterr().err
        assert not (labels / "b").exists()


def test_runs_that_sweeps_share_are_collected_from_the_results_of_the_other(broken, labels, capsys):
    words = ["collect=ablation_v1", "protocol=smoke", "seeds=[0,1]", *WORDS, "into=shared", "measured=m"]
    command(*words)
    shared, own = (archive.read(labels / name) for name in ("shared", "m"))
    assert archive.plan_of(shared)["sweep"] == "ablation_v1"
    assert shared.runs["arm"].unique().tolist() == ["zero"] and len(shared.runs) == 2
    finals = own.finals("eval/token_accuracy")
    expected = finals[finals["arm"] == "zero"].reset_index(drop=True)
    assert shared.finals("eval/token_accuracy").equals(expected)
    assert shared.about["date"] == own.about["date"]
    command(*words)
    assert "holds all of this already" in capsys.readouterr().out
