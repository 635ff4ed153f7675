"""What is forgotten for the backward pass is made again there: the same gradients from less memory."""

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

import atm  # noqa: F401  registers the models
from atm import recompute
from atm.recompute import forgetting, remade


def recomputable(function, *args):
    return remade(function(*args), function, *args)


class Counted:
    """A function that counts its calls."""

    def __init__(self, function) -> None:
        self.function = function
        self.calls = 0

    def __call__(self, *args):
        self.calls += 1
        return self.function(*args)


def test_is_made_again_once_for_all_who_want_it() -> None:
    x, weights = torch.randn(4, 3, requires_grad=True), torch.randn(3, 3, 2, requires_grad=True)
    made = Counted(F.gelu)
    with forgetting():
        y = recomputable(made, x)
        total = sum((y @ w).sin().sum() for w in weights.unbind())
    del y
    first = torch.autograd.grad(total, [x, weights], retain_graph=True)
    assert made.calls == 2
    again = torch.autograd.grad(total, [x, weights])
    assert made.calls == 3
    y = F.gelu(x)
    plain = torch.autograd.grad(sum((y @ w).sin().sum() for w in weights.unbind()), [x, weights])
    for a, b, c in zip(first, again, plain):
        assert torch.equal(a, c) and torch.equal(b, c)


def test_what_is_made_of_forgotten_things_is_made_again_from_them() -> None:
    x, weight = torch.randn(4, 3, requires_grad=True), torch.randn(3, 3, requires_grad=True)
    normed, active = Counted(lambda x: F.layer_norm(x, (3,))), Counted(F.gelu)
    with forgetting():
        y = recomputable(active, recomputable(normed, x))
        loss = (y @ weight).square().sum()
    del y
    ours = torch.autograd.grad(loss, [x, weight])
    assert (normed.calls, active.calls) == (2, 2)
    plain = torch.autograd.grad((F.gelu(F.layer_norm(x, (3,))) @ weight).square().sum(), [x, weight])
    for a, b in zip(ours, plain):
        assert torch.equal(a, b)


def test_views_are_cut_out_of_what_is_made_again() -> None:
    x = torch.randn(4, 6, requires_grad=True)
    weights = [torch.randn(2, 2, requires_grad=True) for _ in range(3)]

    def mixed(y: Tensor) -> Tensor:
        return sum((part @ w).tanh().sum() for part, w in zip(y.split(2, dim=1), weights))

    with forgetting():
        loss = mixed(recomputable(torch.sin, x))
    for a, b in zip(torch.autograd.grad(loss, [x, *weights]), torch.autograd.grad(mixed(x.sin()), [x, *weights])):
        assert torch.equal(a, b)


def test_memory_stands_for_a_result_only_while_that_lives() -> None:
    x = torch.randn(4, 4, requires_grad=True)
    with forgetting():
        y = recomputable(torch.sin, x)
        (forgotten,) = recompute._made.get()
        memory = y.untyped_storage().data_ptr()
        assert forgotten.occupies(memory)
        del y  # what the allocator gives this memory to next is another tensor
        assert not forgotten.occupies(memory)


def test_a_result_changed_in_place_is_kept() -> None:
    x, weight = torch.randn(4, 4, requires_grad=True), torch.randn(4, 4, requires_grad=True)
    with forgetting():
        y = recomputable(torch.sin, x)
        y.mul_(2)
        loss = (y @ weight).sum()
    (ours,) = torch.autograd.grad(loss, [weight])
    assert torch.equal(ours, (2 * x.detach().sin()).T @ torch.ones(4, 4))


@pytest.mark.parametrize("name", ["norm1.weight", "norm2.bias", "mlp.fc2.weight", "mixer.proj.weight"])
def test_weights_changed_in_place_before_the_backward_pass_are_found_out(name: str) -> None:
    model = timm.create_model("atmnet_nano", num_classes=5)
    loss = model(torch.randn(1, 3, 64, 64)).square().sum()
    with torch.no_grad():
        model.stages[0].blocks[0].get_parameter(name).mul_(3)
    with pytest.raises(RuntimeError, match=r"in place|inplace"):
        loss.backward()


def test_weights_given_for_one_call_are_those_of_its_backward_pass() -> None:
    torch.manual_seed(0)
    model, images = timm.create_model("atmnet_nano", num_classes=5).double(), torch.randn(2, 3, 64, 64).double()
    gradients = []
    for forgets in (True, False):
        for block in (block for stage in model.stages for block in stage.blocks):
            block.recomputes = forgets
        given = {name: (1.5 * p).detach().requires_grad_() for name, p in model.named_parameters()}
        loss = functional_call(model, given, (images,)).square().sum()
        gradients.append(torch.autograd.grad(loss, list(given.values())))
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


def test_hooks_on_saved_tensors_around_a_model_see_them_all() -> None:
    torch.manual_seed(0)
    model, images = timm.create_model("atmnet_nano", num_classes=5), torch.randn(1, 3, 64, 64)
    counts = []
    for forgets in (True, False):
        for block in (block for stage in model.stages for block in stage.blocks):
            block.recomputes = forgets
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


def test_is_made_again_under_the_autocast_it_was_made_under() -> None:
    x, fc = torch.randn(4, 8, requires_grad=True), nn.Linear(8, 8)
    made: list[torch.dtype] = []

    def double(x: Tensor) -> Tensor:
        y = 2 * fc(x)
        made.append(y.dtype)
        return y

    with torch.autocast("cpu", torch.bfloat16), forgetting():
        loss = (recomputable(double, x) @ torch.randn(8, 8, requires_grad=True)).float().sum()
    loss.backward()
    assert made == [torch.bfloat16, torch.bfloat16]


def test_nothing_is_made_again_without_gradients() -> None:
    made = Counted(F.gelu)
    with torch.no_grad(), forgetting():
        recomputable(made, torch.randn(3))
    recomputable(made, torch.randn(3))  # outside, it is a plain call
    assert made.calls == 2


@pytest.mark.parametrize(
    "arm", [{}, {"offsets": "zero"}, {"offsets": "joint"}, {"samples": 3}, {"fusion": "token"}], ids=str
)
def test_a_model_has_the_same_gradients_and_keeps_less(arm: dict) -> None:
    torch.manual_seed(0)
    model = timm.create_model("atmnet_nano", num_classes=5, drop_path_rate=0.2, **arm)
    images = torch.randn(2, 3, 96, 64)
    gradients, kept = [], []
    for forgets in (False, True):
        for block in (block for stage in model.stages for block in stage.blocks):
            block.recomputes = forgets
        torch.manual_seed(1)
        model.zero_grad()
        model(images).square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
        kept.append(kept_graph(model, images))
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name
    assert kept[1] < 0.8 * kept[0]


def kept_graph(model: nn.Module, images: Tensor) -> int:
    """The bytes of all tensors that the graph of one forward pass keeps alive, parameters aside."""
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
            for one in saved if isinstance(saved, (tuple, list)) else [saved]:
                held = getattr(one, "data", None)
                if isinstance(held, Tensor) and held.untyped_storage().data_ptr() not in parameters:
                    storages[held.untyped_storage().data_ptr()] = held.untyped_storage().nbytes()
        nodes += [function for function, _ in node.next_functions]
    return sum(storages.values())
