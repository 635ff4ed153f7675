"""Parameters and FLOPs of any timm model, counted from the command line."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from measurements import complexity
from run import main


def test_a_foreign_backbone_is_counted(capsys):
    assert main(["complexity=timm/resnet10t", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (row["label"], row["size"], row["published"]) == ("timm/resnet10t", 224, [])
    assert row["params_m"] == pytest.approx(5.435488) and row["flops_g"] == pytest.approx(1.102151, abs=1e-6)
    assert main(["complexity=timm/resnet10t"]) == 0
    out = capsys.readouterr().out
    assert "timm/resnet10t" in out and "5.435" in out and "1.102" in out


def test_a_model_of_one_image_size_is_counted_at_it():
    assert complexity.image_size("vit_base_patch16_384") == 384
    assert complexity.image_size("resnet10t") == complexity.image_size("atmnet_t") == 224


@pytest.mark.parametrize(("name", "nearest"), [("timm/resnet10", "'timm/resnet10t'"), ("tt", "'t'")])
def test_an_unknown_model_is_refused_with_the_nearest(name, nearest, capsys):
    assert main([f"complexity={name}"]) == 2
    err = capsys.readouterr().err
    assert nearest in err and len(err.splitlines()) == 1


def test_any_module_is_counted_on_its_own_arguments():
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(10, 20)

        def forward(self, first, second):
            return self.linear(first) + self.linear(second)

    inputs = tuple(torch.empty(1, 10, device="meta") for _ in range(2))
    assert complexity.count(Sum(), inputs) == (220 / 1e6, 2 * 200 / 1e9)
