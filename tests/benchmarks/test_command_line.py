"""The command line refuses unknown names and values in one line, and callables are timed in turns."""

import os

import pytest
import torch

from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.processes import in_new_process
from benchmarks.timing import Disagreement, Stopwatch, Times, interleave, require_same, turns
from errors import RunFailed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sampelr"], "unknown benchmark 'sampelr'; did you mean 'sampler'"),
        ([], "NAME"),
        (["model", "--models", "atmnet_xz"], "unknown model 'atmnet_xz'; did you mean 'atmnet_xt'"),
        (["model", "--models", "convnext_tiny,swin_tiny_patch4_window7_225"], "'swin_tiny_patch4_window7_224'"),
        (["model", "--models", "zzzzzz"], "unknown model 'zzzzzz' (valid: atmnet_xt, atmnet_xt_deform,"),
        (["mixer", "--dtype", "bfloat"], "unknown dtype 'bfloat'; did you mean 'bfloat16'"),
        (["sampler", "--device", "cdu"], "unknown device 'cdu'"),
        (["sampler", "--device", "cuda:99"], "no device 'cuda:99' on this machine (valid: cpu"),
        (["sampler", "--batch", "0"], "--batch: 0: must be at least 1"),
        (["resolution", "--sizes", "64,big"], "--sizes: 'big' is not a whole number"),
        (["segmentation", "--heads", "uppernet"], "unknown head 'uppernet'; did you mean 'upernet'"),
        (["segmentation", "--model", "vit_tiny_patch16_224"], "none at 4"),
        (["detection", "--heads", "mask_rcn"], "unknown head 'mask_rcn'; did you mean 'mask_rcnn'"),
        (["detection", "--model", "vit_tiny_patch16_224"], "none at 4"),
        (["loader"], "--root"),
        (["startup", "--threads", "2"], "--threads"),
    ],
)
def test_unknown_names_and_values_are_refused(refused, words, message) -> None:
    assert message in refused(*words)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_has_help(name, capsys) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main([name, "--help"])
    assert exit_info.value.code == 0 and "--repeats" in capsys.readouterr().out


@pytest.mark.slow
def test_the_number_of_threads_is_restored(run) -> None:
    before = torch.get_num_threads()
    run("mixer", "--threads", str(before + 1), "--batch", "1", "--image", "32")
    assert torch.get_num_threads() == before


def test_startup_times_every_command(run) -> None:
    report, printed = run("startup")
    for row in report["rows"]:
        assert row["command"] in printed and f"{row['median_s']:.3f}" in printed


def test_callables_take_turns_and_the_first_turn_does_not_count() -> None:
    called: list[str] = []
    seconds = {"first": iter([9.0, 3.0, 1.0, 2.0]), "second": iter([9.0, 6.0, 2.0, 8.0])}

    def clock(name):
        return lambda: (called.append(name), next(seconds[name]))[1]

    times = turns({name: clock(name) for name in seconds}, repeats=3)
    assert called == ["first", "second", "second", "first"] * 2  # the order rotates
    assert times["first"] == Times((3.0, 1.0, 2.0)) and times["first"].median == 2.0 and times["first"].fastest == 1.0
    assert times["first"].over(times["second"]) == 2 / 6 and times["first"].fastest_over(times["second"]) == 1 / 2


def test_a_short_call_is_repeated_within_its_turn() -> None:
    called: list[int] = []
    watch = Stopwatch(lambda: called.append(0), torch.device("cpu"))
    watch()
    assert len(called) == 2
    watch()
    assert len(called) == 2 + watch.calls and watch.calls > 1
    assert set(interleave({"call": lambda: None}, 2, torch.device("cpu"))) == {"call"}


def test_nan_is_a_disagreement() -> None:
    ones = torch.ones(3)
    require_same("ones", ones, ones + 1e-6, 1e-4)
    with pytest.raises(Disagreement):
        require_same("ones", ones, ones * torch.nan, 1e-4)
    require_same("large", 1e4 * ones, 1e4 * ones + 0.5, 1e-4)
    with pytest.raises(Disagreement):
        require_same("large", 1e4 * ones, 1e4 * ones + 2, 1e-4)


def test_a_process_that_dies_is_an_error() -> None:
    with pytest.raises(RunFailed, match="measures 3 died"):
        in_new_process(os._exit, 3)


def test_a_missing_folder_for_the_json_is_refused_before_measuring(tmp_path, capsys) -> None:
    assert main(["startup", "--json", str(tmp_path / "missing" / "x.json")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_a_network_of_one_size_is_refused_in_one_line(capsys) -> None:
    words = ["--model", "swin_tiny_patch4_window7_224", "--sizes", "64", "--repeats", "1"]
    assert main(["resolution", *words]) == 2
    assert "does not take images of every size" in capsys.readouterr().err
