"""Recomputation in the backward pass gives the same gradients from less memory."""

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

import atm  # noqa: F401  registers the models
from atm import recompute
from atm.recompute import recomputable, recomputation


def call(function, *args):
    return recomputable(function(*args), function, *args)


class Counted:
    """A function that counts its calls."""

    def __init__(self, function) -> None:
        self.function = function
        self.calls = 0

    def __call__(self, *args):
        self.calls += 1
        return self.function(*args)


def test_a_tensor_is_recomputed_once_for_all_operations() -> None:
    x, weights = torch.randn(4, 3, requires_grad=True), torch.randn(3, 3, 2, requires_grad=True)
    gelu = Counted(F.gelu)
    with recomputation():
        y = call(gelu, x)
        total = sum((y @ w).sin().sum() for w in weights.unbind())
    del y
    first = torch.autograd.grad(total, [x, weights], retain_graph=True)
    assert gelu.calls == 2
    again = torch.autograd.grad(total, [x, weights])
    assert gelu.calls == 3
    y = F.gelu(x)
    plain = torch.autograd.grad(sum((y @ w).sin().sum() for w in weights.unbind()), [x, weights])
    for a, b, c in zip(first, again, plain):
        assert torch.equal(a, c) and torch.equal(b, c)


def test_a_tensor_may_be_recomputed_from_a_recomputed_tensor() -> None:
    x, weight = torch.randn(4, 3, requires_grad=True), torch.randn(3, 3, requires_grad=True)
    normed, active = Counted(lambda x: F.layer_norm(x, (3,))), Counted(F.gelu)
    with recomputation():
        y = call(active, call(normed, x))
        loss = (y @ weight).square().sum()
    del y
    ours = torch.autograd.grad(loss, [x, weight])
    assert (normed.calls, active.calls) == (2, 2)
    plain = torch.autograd.grad((F.gelu(F.layer_norm(x, (3,))) @ weight).square().sum(), [x, weight])
    for a, b in zip(ours, plain):
        assert torch.equal(a, b)


def test_views_are_taken_from_the_recomputed_tensor() -> None:
    x = torch.randn(4, 6, requires_grad=True)
    weights = [torch.randn(2, 2, requires_grad=True) for _ in range(3)]

    def mixed(y: Tensor) -> Tensor:
        return sum((part @ w).tanh().sum() for part, w in zip(y.split(2, dim=1), weights))

    with recomputation():
        loss = mixed(call(torch.sin, x))
    for a, b in zip(torch.autograd.grad(loss, [x, *weights]), torch.autograd.grad(mixed(x.sin()), [x, *weights])):
        assert torch.equal(a, b)


def test_an_address_identifies_a_result_only_while_that_is_alive() -> None:
    x = torch.randn(4, 4, requires_grad=True)
    with recomputation():
        y = call(torch.sin, x)
        (entry,) = recompute._registered.get()
        memory = y.untyped_storage().data_ptr()
        assert entry.occupies(memory)
        del y  # the allocator may give this memory to another tensor
        assert not entry.occupies(memory)


def test_a_result_changed_in_place_is_not_recomputed() -> None:
    x, weight = torch.randn(4, 4, requires_grad=True), torch.randn(4, 4, requires_grad=True)
    with recomputation():
        y = call(torch.sin, x)
        y.mul_(2)
        loss = (y @ weight).sum()
    (ours,) = torch.autograd.grad(loss, [weight])
    assert torch.equal(ours, (2 * x.detach().sin()).T @ torch.ones(4, 4))


@pytest.mark.parametrize("name", ["norm1.weight", "norm2.bias", "mlp.fc2.weight", "mixer.proj.weight"])
def test_weights_changed_in_place_before_the_backward_pass_are_an_error(name: str) -> None:
    model = timm.create_model("atmnet_nano", num_classes=5)
    loss = model(torch.randn(1, 3, 64, 64)).square().sum()
    with torch.no_grad():
        model.stages[0].blocks[0].get_parameter(name).mul_(3)
    with pytest.raises(RuntimeError, match=r"in place|inplace"):
        loss.backward()


def test_the_backward_pass_uses_the_weights_of_its_functional_call() -> None:
    torch.manual_seed(0)
    model, images = timm.create_model("atmnet_nano", num_classes=5).double(), torch.randn(2, 3, 64, 64).double()
    gradients = []
    for recomputes in (True, False):
        for block in (block for stage in model.stages for block in stage.blocks):
            block.recomputes = recomputes
        weights = {name: (1.5 * p).detach().requires_grad_() for name, p in model.named_parameters()}
        loss = functional_call(model, weights, (images,)).square().sum()
        gradients.append(torch.autograd.grad(loss, list(weights.values())))
    for ours, plain in zip(*gradients):
        assert torch.equal(ours, plain)


def test_transforms_of_functions_work() -> None:
    model, images = timm.create_model("atmnet_nano", num_classes=5), torch.randn(2, 3, 64, 64)
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(parameters: dict[str, Tensor], images: Tensor) -> Tensor:
        return functional_call(model, parameters, (images,)).square().sum()

    gradients = torch.func.grad(loss)(parameters, images)
    model(images).square().sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-4)
    each = torch.func.vmap(lambda image: model(image[None])[0])(images)
    torch.testing.assert_close(each, model(images), rtol=1e-3, atol=1e-4)


def test_outer_hooks_on_saved_tensors_see_every_tensor() -> None:
    torch.manual_seed(0)
    model, images = timm.create_model("atmnet_nano", num_classes=5), torch.randn(1, 3, 64, 64)
    counts = []
    for recomputes in (True, False):
        for block in (block for stage in model.stages for block in stage.blocks):
            block.recomputes = recomputes
        seen: list[Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, seen=seen: seen.append(t) or t, lambda t: t):
            model(images)
        counts.append(len(seen))
    assert counts[0] == counts[1] > 100


def test_hooks_on_norms_run_once() -> None:
    model = timm.create_model("atmnet_nano", num_classes=5)
    calls: list[bool] = []
    for block in model.stages[0].blocks:
        block.norm1.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    model(torch.randn(1, 3, 64, 64)).sum().backward()
    assert calls == [True] * len(model.stages[0].blocks)


def test_recomputation_uses_the_autocast_of_the_forward_pass() -> None:
    x, fc = torch.randn(4, 8, requires_grad=True), nn.Linear(8, 8)
    dtypes: list[torch.dtype] = []

    def double(x: Tensor) -> Tensor:
        y = 2 * fc(x)
        dtypes.append(y.dtype)
        return y

    with torch.autocast("cpu", torch.bfloat16), recomputation():
        loss = (call(double, x) @ torch.randn(8, 8, requires_grad=True)).float().sum()
    loss.backward()
    assert dtypes == [torch.bfloat16, torch.bfloat16]


def test_nothing_is_recomputed_without_gradients() -> None:
    gelu = Counted(F.gelu)
    with torch.no_grad(), recomputation():
        call(gelu, torch.randn(3))
    call(gelu, torch.randn(3))  # outside the context it is a plain call
    assert gelu.calls == 2


@pytest.mark.parametrize(
    "arm",
    [{}, *({"offsets": mode} for mode in ("zero", "joint", "static", "random")), {"samples": 3}, {"fusion": "token"}],
    ids=str,
)
def test_a_model_has_the_same_gradients_and_keeps_less(arm: dict) -> None:
    torch.manual_seed(0)
    model = timm.create_model("atmnet_nano", num_classes=5, drop_path_rate=0.2, **arm)
    images = torch.randn(2, 3, 96, 64)
    gradients, graph_bytes = [], []
    for recomputes in (False, True):
        for block in (block for stage in model.stages for block in stage.blocks):
            block.recomputes = recomputes
        torch.manual_seed(1)
        model.zero_grad()
        model(images).square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
        graph_bytes.append(bytes_kept_by_the_graph(model, images))
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name
    assert graph_bytes[1] < 0.8 * graph_bytes[0]


def bytes_kept_by_the_graph(model: nn.Module, images: Tensor) -> int:
    """The bytes of all tensors that the graph of one forward pass keeps alive, without parameters."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    logits = model(images)
    storages: dict[int, int] = {}
    nodes, seen = [logits.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for name in (name for name in dir(node) if name.startswith("_raw_saved_")):
            saved = getattr(node, name)
            for saved_tensor in saved if isinstance(saved, (tuple, list)) else [saved]:
                data = getattr(saved_tensor, "data", None)
                if isinstance(data, Tensor) and data.untyped_storage().data_ptr() not in parameters:
                    storages[data.untyped_storage().data_ptr()] = data.untyped_storage().nbytes()
        nodes += [function for function, _ in node.next_functions]
    return sum(storages.values())
