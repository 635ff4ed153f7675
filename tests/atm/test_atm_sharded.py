"""FSDP2 (``fully_shard``) on two CPU processes: what the docs say to wrap gives the outputs and gradients of one model."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import atm  # noqa: F401  (registers the models)


def by_stage(model: nn.Module, **options: Any) -> None:
    for stage in model.stages:
        fully_shard(stage, **options)
    fully_shard(model, **options)


def by_block(model: nn.Module, **options: Any) -> None:
    for stage in model.stages:
        for block in stage.blocks:
            if block.predicts:
                fully_shard(block.offsets, **options)
            fully_shard(block, **options)
    fully_shard(model, **options)


ARMS: list[dict[str, Any]] = [{}, {"offsets": "static"}]


def model_of(arm: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("atmnet_nano", num_classes=5, depths=[2, 1, 1, 1], **arm)


def compare(rank: int, store: str) -> None:
    """Runs in each of two processes; an assertion that fails ends both."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for wrap in (by_stage, by_block):
        for arm in ARMS:
            sharded, whole = model_of(arm), model_of(arm)
            wrap(sharded, mesh=mesh)
            ours, expected = sharded(images), whole(images)
            torch.testing.assert_close(ours, expected)
            ours.square().mean().backward()
            expected.square().mean().backward()
            for (name, parameter), other in zip(sharded.named_parameters(), whole.parameters(), strict=True):
                if other.grad is not None:
                    torch.testing.assert_close(parameter.grad.full_tensor(), other.grad, msg=f"{wrap} {arm} {name}")
    dist.destroy_process_group()


@pytest.mark.slow
def test_a_sharded_model_equals_the_whole_one(tmp_path: Path) -> None:
    mp.spawn(compare, (str(tmp_path / "store"),), nprocs=2)
