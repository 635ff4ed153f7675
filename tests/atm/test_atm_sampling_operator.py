"""The sampling operator saves only its inputs, and compiles, exports and runs under autocast."""

import io
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from atm.sampling import recompose, sample_axis, sample_joint, use
from atm.sampling.backends import unavailable

pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.parametrize("backend", ["eager", "native"], indirect=True, scope="module"),
]


def maps(*widths: int, batch: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, 3, 4, w, generator=generator).requires_grad_() for w in widths]


# Every public function with its results in a list, and the widths of its arguments.
FUNCTIONS: dict[str, tuple[Callable[..., list[Tensor]], list[int]]] = {
    "sample_axis, vertical": (lambda x, offsets: [sample_axis(x, offsets, 1)], [6, 3]),
    "sample_axis, horizontal": (lambda x, offsets: [sample_axis(x, offsets, 2)], [6, 6]),
    "sample_joint": (lambda x, dy, dx: [sample_joint(x, dy, dx)], [6, 3, 3]),
    "recompose": (lambda x, offsets: list(recompose(x, offsets, False, 2)), [6, 12]),
    "recompose, joint": (lambda x, offsets: list(recompose(x, offsets, True, 1)), [6, 6]),
}


def with_gradients(function: Callable[..., list[Tensor]], inputs: list[Tensor]) -> list[Tensor]:
    outputs = function(*inputs)
    cotangents = [torch.linspace(-1, 1, o.numel(), dtype=o.dtype).reshape(o.shape) for o in outputs]
    return [*(o.detach() for o in outputs), *torch.autograd.grad(outputs, inputs, cotangents)]


def assert_all_close(ours: list[Tensor], expected: list[Tensor], tolerance: float = 1e-6) -> None:
    assert len(ours) == len(expected)
    for a, b in zip(ours, expected):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("pattern", ["row", "column", "cross", "joint"])
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_operator_passes_pytorchs_checks(pattern: str, keep: bool, dtype: torch.dtype) -> None:
    x, offsets = maps(4, 2 if pattern in ("row", "column") else 4)
    x = x.detach().to(dtype).requires_grad_()
    torch.library.opcheck(torch.ops.atm.read.default, (x, offsets, pattern, 1, keep))
    tokens, means = torch.ops.atm.read(x.detach(), offsets.detach(), pattern, 1, keep)
    cotangent_means = torch.ones_like(means) if keep else None
    backward_inputs = (torch.ones_like(tokens), cotangent_means, x.detach(), offsets.detach(), pattern, 1, keep)
    torch.library.opcheck(torch.ops.atm.read_backward.default, backward_inputs)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_only_the_inputs_are_saved_for_the_backward_pass(name: str) -> None:
    function, widths = FUNCTIONS[name]
    inputs, saved = maps(*widths), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        function(*inputs)
    offsets = torch.cat(inputs[:0:-1], dim=-1)  # sample_joint concatenates its two, dx first
    assert len(saved) == 2
    assert saved[0].data_ptr() == inputs[0].data_ptr()
    assert torch.equal(saved[1], offsets)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_compiles_without_a_graph_break(name: str) -> None:
    function, widths = FUNCTIONS[name]
    inputs = maps(*widths)

    def function_between_others(*inputs: Tensor) -> list[Tensor]:
        return [2 * result for result in function(*(i.sin() for i in inputs))]

    torch._dynamo.reset()
    compiled = torch.compile(function_between_others, fullgraph=True, backend="aot_eager")
    assert_all_close(with_gradients(compiled, inputs), with_gradients(function_between_others, inputs))


class Mixer(nn.Module):
    """Offsets and sampling of a mixer, without its FCs."""

    def __init__(self, joint: bool) -> None:
        super().__init__()
        self.joint = joint
        self.offsets = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return recompose(x, self.offsets(x), self.joint, 1)


@pytest.mark.parametrize("joint", [False, True])
def test_an_exported_model_samples_any_batch_with_any_backend(joint: bool, backend: str) -> None:
    torch.manual_seed(0)
    mixer = Mixer(joint)
    (x,) = maps(6)
    file = io.BytesIO()
    program = torch.export.export(mixer, (x.detach(),), dynamic_shapes={"x": {0: torch.export.Dim("batch", max=512)}})
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    (x,) = maps(6, batch=5)
    expected = mixer(x)
    backends = [b for b in ("reference", "eager", "native") if unavailable(b, "cpu") is None]
    try:
        for name in backends:
            use(name)
            assert_all_close(list(loaded(x)), list(expected), 1e-5)
    finally:
        use(backend)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_does_not_change_the_dtypes_of_the_arguments(joint: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 6)
    (x,) = maps(6)
    with torch.autocast("cpu", torch.bfloat16):
        offsets = layer(x)
        tokens, means = recompose(x.to(dtype), offsets, joint, 1)
    assert offsets.dtype == torch.bfloat16
    assert (tokens.dtype, means.dtype) == (dtype, torch.float32)
    for a, b in zip((tokens, means), recompose(x.to(dtype), offsets, joint, 1)):
        assert torch.equal(a, b)
    gradients = torch.autograd.grad(tokens.float().sum() + means.sum(), [x, layer.weight])
    assert all(torch.isfinite(g).all() and g.dtype == torch.float32 for g in gradients)
