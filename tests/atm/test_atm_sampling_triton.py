"""The Triton kernels equal ``atm.sampling``, and compile for a GPU on a machine without a GPU.

Without a GPU, Triton's interpreter runs them on the CPU. It must be chosen before Triton is imported, which torch may
have done already, so the class runs in its own process. Layouts and the order of memory accesses do not exist in the
interpreter and are checked in the compiled kernels.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import atm.sampling
from atm.sampling import backends, recompose, use
from atm.sampling import reference as formula

triton = pytest.importorskip("triton")

MODES = ["horizontal", "vertical", "joint"]
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
RUNS_HERE = INTERPRETED or torch.cuda.is_available()
DEVICE = "cpu" if INTERPRETED else "cuda"
# Lines and channels beyond one block of the kernels, groups of 1, 2, 3, 5 and all channels, single tokens and lines.
SHAPES = [(2, 3, 5, 6, 3), (1, 1, 1, 4, 2), (1, 1, 35, 5, 1), (1, 37, 1, 6, 2), (1, 3, 2, 70, 70), (1, 2, 3, 150, 30)]


def kernels() -> ModuleType:
    import atm.sampling.triton_backend

    return atm.sampling.triton_backend


def inputs(shape: tuple[int, ...], dtype: torch.dtype, offset_dtype: torch.dtype, seed: int = 0) -> dict[str, Tensor]:
    """Random tensors whose values and positions are exact in their dtypes, so that only the kernels round."""
    batch, height, width, channels, groups = shape
    generator = torch.Generator().manual_seed(seed)
    x, grad = torch.randn(2, batch, height, width, channels, generator=generator).to(dtype)
    dy, dx = (3 * torch.randn(2, batch, height, width, groups, generator=generator)).mul(8).round().div(8)
    return {
        "x": x,
        "grad": grad,
        "dy": dy.to(offset_dtype),
        "dx": dx.to(offset_dtype),
        "grad_mean": torch.randn(batch, channels, generator=generator),
    }


def reference(mode: str, x: Tensor, grad: Tensor, dy: Tensor, dx: Tensor, grad_mean: Tensor) -> dict[str, Tensor]:
    """The output and the gradients in float64, by autograd."""
    x, dy, dx = (t.double().requires_grad_() for t in (x, dy, dx))
    variables = {"horizontal": [x, dx], "vertical": [x, dy], "joint": [x, dy, dx]}[mode]
    if mode == "joint":
        out = formula.sample_joint(x, dy, dx)
    else:
        out = formula.sample_axis(*variables, 1 if mode == "vertical" else 2)
    gradients = torch.autograd.grad(out, variables, grad.double() + grad_mean.double()[:, None, None])
    return dict(zip(["out", "grad_x", "grad_first", "grad_second"], [out.detach(), *gradients]))


def sliced(tensor: Tensor) -> Tensor:
    """A copy of the tensor on the device, as the middle slice of a wider tensor."""
    wide = torch.full((*tensor.shape[:-1], 3 * tensor.shape[-1]), 7.0, dtype=tensor.dtype, device=DEVICE)
    part = wide[..., tensor.shape[-1] : 2 * tensor.shape[-1]]
    part.copy_(tensor)
    return part


def computed(mode: str, x: Tensor, grad: Tensor, dy: Tensor, dx: Tensor, grad_mean: Tensor | None) -> dict[str, Tensor]:
    """The same by the kernels, on slices; checks that nothing outside the results is written."""
    x, grad, dy, dx = (sliced(t) for t in (x, grad, dy, dx))
    grad_mean = None if grad_mean is None else sliced(grad_mean)
    compute = torch.float64 if torch.float64 in (x.dtype, dy.dtype) else torch.float32
    nan = float("nan")
    results = {"out": sliced(torch.full_like(x, nan)), "grad_x": sliced(torch.zeros_like(x, dtype=compute))}
    results["grad_first"] = sliced(torch.full_like(dy, nan))
    if mode == "joint":
        results["grad_second"] = sliced(torch.full_like(dx, nan))
        kernels().joint_forward(x, dy, dx, results["out"])
        gradients = [results[name] for name in ("grad_x", "grad_first", "grad_second")]
        kernels().joint_backward(grad, x, dy, dx, *gradients, grad_mean)
    else:
        offsets, dim = (dx, 2) if mode == "horizontal" else (dy, 1)
        kernels().axis_forward(x, offsets, dim, results["out"])
        kernels().axis_backward(grad, x, offsets, dim, results["grad_x"], results["grad_first"], grad_mean)
    for result in results.values():
        width = result.shape[-1]
        neighbours = result._base[..., :width], result._base[..., 2 * width :]
        assert all(torch.all(n == 7.0) for n in neighbours)
    return {name: result.cpu() for name, result in results.items()}


def assert_close(ours: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Within float32's rounding of a few terms, and one rounding to the dtype of a narrow result.

    Half a unit in the last of bfloat16's 8 bits is at most 2^-8 of a result, of float16's 11 bits 2^-11.
    The interpreter truncates to bfloat16, with an error of up to one unit; the compiled kernels round.
    """
    bfloat16 = 2.0**-7 if INTERPRETED else 2.0**-8
    assert ours.keys() == expected.keys()
    for name, result in ours.items():
        relative = {torch.bfloat16: bfloat16, torch.float16: 2.0**-11, torch.float64: 1e-12}.get(result.dtype, 1e-5)
        absolute = 1e-12 if result.dtype == torch.float64 else 1e-5
        torch.testing.assert_close(
            result.double(), expected[name], rtol=relative, atol=absolute, msg=lambda m, name=name: f"{name}: {m}"
        )


@pytest.mark.gpu
class TestKernels:
    __test__ = RUNS_HERE

    def test_are_available_here(self) -> None:
        assert kernels().unavailable(DEVICE) is None

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("shape", SHAPES)
    def test_equal_the_reference(self, mode: str, shape: tuple[int, ...]) -> None:
        tensors = inputs(shape, torch.float32, torch.float32)
        assert_close(computed(mode, **tensors), reference(mode, **tensors))

    @pytest.mark.parametrize("mode", ["horizontal", "joint"])
    @pytest.mark.parametrize(
        ("dtype", "offset_dtype"),
        [
            (torch.bfloat16, torch.float32),
            (torch.bfloat16, torch.bfloat16),
            (torch.float16, torch.float32),
            (torch.float16, torch.float16),
            (torch.float32, torch.bfloat16),
            (torch.float64, torch.float64),
            (torch.float64, torch.float32),
            (torch.float32, torch.float64),
        ],
    )
    def test_equal_the_reference_in_any_dtype(self, mode: str, dtype: torch.dtype, offset_dtype: torch.dtype) -> None:
        tensors = inputs((2, 2, 3, 6, 3), dtype, offset_dtype)
        if dtype == torch.float64:
            tensors["grad_mean"] = tensors["grad_mean"].double()
        assert_close(computed(mode, **tensors), reference(mode, **tensors))

    @settings(max_examples=12, deadline=None, derandomize=True)
    @given(
        mode=st.sampled_from(MODES),
        sizes=st.tuples(st.integers(1, 2), st.integers(1, 5), st.integers(1, 5)),
        groups=st.integers(1, 4),
        sharing=st.integers(1, 5),
        seed=st.integers(0, 2**16),
    )
    def test_equal_the_reference_for_any_shape(self, mode, sizes, groups, sharing, seed) -> None:
        tensors = inputs((*sizes, groups * sharing, groups), torch.float32, torch.float32, seed)
        assert_close(computed(mode, **tensors), reference(mode, **tensors))

    @pytest.mark.parametrize("mode", MODES)
    def test_no_mean_gradient_equals_a_zero_mean_gradient(self, mode: str) -> None:
        tensors = inputs((2, 2, 3, 6, 3), torch.float32, torch.float32)
        zero = tensors | {"grad_mean": torch.zeros(2, 6)}
        with_zero, without = computed(mode, **zero), computed(mode, **(tensors | {"grad_mean": None}))
        assert all(torch.equal(with_zero[name], without[name]) for name in without)

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("far", [-3e9, 1e30, float("inf"), float("-inf")])
    def test_read_zero_far_outside_without_gradient(self, mode: str, far: float) -> None:
        tensors = inputs((1, 2, 3, 4, 2), torch.float32, torch.float32)
        tensors["dy"], tensors["dx"] = torch.full((2, 1, 2, 3, 2), far)
        for result in computed(mode, **tensors).values():
            assert torch.count_nonzero(result) == 0

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("position", [-2.0, -1.5, -1.0, 1.5, 2.0, 2.5, 3.0, 3.5])
    def test_equal_the_reference_at_the_border(self, mode: str, position: float) -> None:
        tensors = inputs((1, 3, 3, 2, 1), torch.float32, torch.float32)
        here = torch.arange(3.0)
        tensors["dy"] = (position - here).reshape(1, 3, 1, 1).expand(1, 3, 3, 1)
        tensors["dx"] = (position - here).reshape(1, 1, 3, 1).expand(1, 3, 3, 1)
        assert_close(computed(mode, **tensors), reference(mode, **tensors))

    @pytest.mark.parametrize("mode", MODES)
    def test_a_nan_offset_affects_only_its_own_read(self, mode: str) -> None:
        tensors = inputs((1, 3, 4, 4, 2), torch.float32, torch.float32)
        clean = computed(mode, **tensors)
        for name in ("dy", "dx"):
            tensors[name][0, 1, 2, 0] = float("nan")
        ours, expected = computed(mode, **tensors), reference(mode, **tensors)
        affected = torch.zeros(1, 3, 4, 4, dtype=torch.bool)
        affected[0, 1, 2, :2] = True
        assert torch.equal(ours["out"].isnan(), affected)
        assert torch.equal(ours["out"][~affected], clean["out"][~affected])
        for name in ours.keys() - {"out"}:
            torch.testing.assert_close(ours[name].double(), expected[name], rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("mode", MODES)
    def test_keep_positions_in_float32_for_narrow_dtypes(self, mode: str) -> None:
        # At position 301.25, bfloat16 could only hold multiples of 2.
        x = torch.arange(400.0).reshape(1, 1, 400, 1).to(DEVICE)
        offsets = torch.full((1, 1, 400, 1), 0.25, dtype=torch.bfloat16, device=DEVICE)
        out = torch.empty_like(x)
        if mode == "joint":
            kernels().joint_forward(x, torch.zeros_like(offsets), offsets, out)
        elif mode == "horizontal":
            kernels().axis_forward(x, offsets, 2, out)
        else:
            kernels().axis_forward(*(t.transpose(1, 2) for t in (x, offsets)), 1, out.transpose(1, 2))
        assert out[0, 0, 301, 0] == 301.25

    @pytest.mark.parametrize("mode", MODES)
    def test_add_to_the_input_gradient(self, mode: str) -> None:
        tensors = {name: t.to(DEVICE) for name, t in inputs((2, 2, 3, 6, 3), torch.bfloat16, torch.float32).items()}
        grad, x, dy, dx = (tensors[name] for name in ("grad", "x", "dy", "dx"))
        start = torch.randn(x.shape, generator=torch.Generator().manual_seed(2)).to(DEVICE)
        once, added = torch.zeros_like(start), start.clone()
        for grad_x in (once, added):
            if mode == "joint":
                kernels().joint_backward(grad, x, dy, dx, grad_x, torch.empty_like(dy), torch.empty_like(dx))
            else:
                dim, offsets = (2, dx) if mode == "horizontal" else (1, dy)
                kernels().axis_backward(grad, x, offsets, dim, grad_x, torch.empty_like(offsets))
        assert torch.count_nonzero(once) > 0
        torch.testing.assert_close(added, start + once, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("mode", MODES)
    def test_offsets_that_are_one_row_in_memory_give_the_bits_of_copies(self, mode: str) -> None:
        x, grad = torch.randn(2, 2, 3, 4, 6, generator=torch.Generator().manual_seed(0)).to(DEVICE)
        row = torch.tensor([0.25, -1.5], device=DEVICE).expand(2, 3, 4, 2)
        results = []
        for offsets in (row, row.contiguous()):
            out, grad_x, first, second = (
                torch.zeros_like(t, memory_format=torch.contiguous_format) for t in (x, x, row, row)
            )
            if mode == "joint":
                kernels().joint_forward(x, offsets, offsets, out)
                kernels().joint_backward(grad, x, offsets, offsets, grad_x, first, second)
            else:
                dim = 2 if mode == "horizontal" else 1
                kernels().axis_forward(x, offsets, dim, out)
                kernels().axis_backward(grad, x, offsets, dim, grad_x, first)
            results.append((out, grad_x, first, second))
        assert all(torch.equal(*pair) and (mode != "joint" or pair[0].any()) for pair in zip(*results))

    @pytest.mark.parametrize("mode", MODES)
    def test_give_the_same_bits_twice(self, mode: str) -> None:
        # Every token reads one of three positions, so that another order of summation would change the bits.
        tensors = inputs((1, 2, 9, 8, 4), torch.bfloat16, torch.float32)
        tensors["dx"] = (torch.arange(9).reshape(1, 1, 9, 1) % 3 - torch.arange(9.0).reshape(1, 1, 9, 1)) + 0.3
        tensors["dx"] = tensors["dx"].expand(1, 2, 9, 4)
        first, second = computed(mode, **tensors), computed(mode, **tensors)
        assert all(torch.equal(first[name], second[name]) for name in first)

    @pytest.mark.parametrize("joint", [False, True])
    def test_sample_a_mixers_tokens_when_chosen(self, joint: bool) -> None:
        generator = torch.Generator().manual_seed(0)
        x, offsets = (torch.randn(2, 3, 4, n, generator=generator) for n in (6, 8))
        grad_tokens, grad_means = torch.randn(2, 3, 4, 6 * (3 if joint else 5), generator=generator), torch.ones(2, 1)

        def read(function, x: Tensor, offsets: Tensor) -> list[Tensor]:
            inputs = [x.detach().requires_grad_(), offsets.detach().requires_grad_()]
            tokens, means = function(*inputs, joint, 2)
            grads = [grad_tokens.to(tokens), grad_means.to(means).expand_as(means)]
            return [tokens, means, *torch.autograd.grad([tokens, means], inputs, grads)]

        use("triton")
        try:
            assert backends.backend_for(DEVICE) == "triton"
            results = read(recompose, x.to(DEVICE), offsets.to(DEVICE))
        finally:
            use("auto")
        for ours, expected in zip(results, read(formula.recompose, x.double(), offsets.double())):
            torch.testing.assert_close(ours.double().cpu(), expected, rtol=1e-5, atol=1e-5)

    @pytest.mark.skipif(DEVICE == "cpu", reason="needs 9 GB, too much for the interpreter")
    def test_use_addresses_beyond_31_bits(self) -> None:
        x, out = (torch.empty(2**31 + 64, dtype=torch.bfloat16, device=DEVICE) for _ in range(2))
        x, out = (t.as_strided((2, 2, 2, 4), (2**31, 8, 4, 1)) for t in (x, out))
        x.copy_(torch.arange(32.0).reshape(2, 2, 2, 4))
        kernels().axis_forward(x, torch.zeros(2, 2, 2, 4, device=DEVICE), 2, out)
        assert torch.equal(x, out)


@pytest.mark.skipif(INTERPRETED, reason="the interpreter runs anywhere")
def test_are_not_available_without_a_gpu() -> None:
    assert kernels().unavailable("cpu") == "the Triton kernels run on CUDA, not on cpu"
    if not torch.cuda.is_available():
        assert kernels().unavailable("cuda") == "there is no CUDA device"


@pytest.mark.slow
@pytest.mark.gpu
@pytest.mark.skipif(RUNS_HERE, reason="the kernels run in this process already")
def test_kernels_under_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", f"{__file__}::TestKernels"]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    root = Path(atm.sampling.__file__).parents[2]
    ran = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


class Hopper:
    """Replaces Triton's driver on a machine without a GPU: names a target to compile for."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> object:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("triton")


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, cache: Path):
    """A function that compiles every kernel as the module calls it and returns texts by kernel and stage."""
    if INTERPRETED:
        pytest.skip("TRITON_INTERPRET=1 replaces the compiler in this process")
    if not (Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas").exists():
        pytest.skip("this Triton has no NVIDIA assembler")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(cache))
    monkeypatch.setattr(triton.runtime.driver, "_active", Hopper())
    # New copies of the kernels, because a kernel caches its compilation.
    spec = importlib.util.find_spec("atm.sampling.triton_kernels")
    copies = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copies)
    monkeypatch.setattr(kernels(), "triton_kernels", copies)
    module = kernels()
    texts: dict[str, dict[str, str]] = {}

    def compile_only(kernel, *args, grid, warmup, **options):
        texts[kernel.__name__] = kernel_run(kernel, *args, grid=grid, warmup=True, **options).asm

    kernel_run = triton.JITFunction.run
    monkeypatch.setattr(triton.JITFunction, "run", compile_only)

    def compile_all(dtype: torch.dtype, size: int, channels: int, sharing: int, with_mean: bool):
        x, grad, out = torch.zeros(3, 2, size, size, channels, dtype=dtype)
        dy, dx, grad_dy, grad_dx = torch.zeros(4, 2, size, size, channels // sharing)
        grad_x, grad_mean = torch.zeros(x.shape), torch.zeros(2, channels) if with_mean else None
        module.axis_forward(x, dx, 2, out)
        module.axis_backward(grad, x, dx, 2, grad_x, grad_dx, grad_mean)
        module.joint_forward(x, dy, dx, out)
        module.joint_backward(grad, x, dy, dx, grad_x, grad_dy, grad_dx, grad_mean)
        return texts

    return compile_all


@pytest.mark.parametrize(
    ("dtype", "size", "channels", "sharing", "with_mean"),
    [
        (torch.float32, 56, 64, 2, True),
        (torch.bfloat16, 56, 64, 2, True),
        (torch.float16, 7, 96, 3, False),
        (torch.bfloat16, 1, 40, 40, True),
    ],
)
def test_compile_for_a_gpu(compiled, dtype, size, channels, sharing, with_mean) -> None:
    texts = compiled(dtype, size, channels, sharing, with_mean)
    assert len(texts) == 6
    for name, stages in texts.items():
        assert len(stages["cubin"]) > 0, name
        # No atomic additions, whose order is undefined, and no registers spilled to memory.
        assert not re.search(r"\b(atom|red|ld\.local|st\.local)\b", stages["ptx"]), name
        # Results are rounded to nearest, as torch rounds.
        narrowing = re.findall(r"cvt\.(\w+)\.(?:satfinite\.)?(?:bf16|f16)(?:x2)?\.f32", stages["ptx"])
        assert set(narrowing) <= {"rn"}, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_joint_input_gradient_stores_a_token_before_it_loads_the_next(compiled, dtype: torch.dtype) -> None:
    """Load, add and store are safe if one lane does all of them for an address, in the order of the program."""
    stages = compiled(dtype, 56, 64, 2, True)["joint_input_gradient_kernel"]
    # There is one layout, with one element per lane and one warp, so loads and stores of an address use the same lane.
    layouts = re.findall(r"^#blocked\d* = (.*)$", stages["ttgir"], re.MULTILINE)
    assert len(layouts) == 1
    assert "sizePerThread = [1], threadsPerWarp = [32], warpsPerCTA = [1]" in layouts[0]
    assert "convert_layout" not in stages["ttgir"]
    # Three loads of the next token, four loads and four stores of this token's neighbours, the barrier; then it repeats.
    accesses = re.findall(r"\b(ld\.global|st\.global|bar\.sync|barrier\.sync)\b", stages["ptx"])
    loop = accesses[accesses.index("st.global") - 7 :]
    assert [a.split(".")[0].replace("barrier", "bar") for a in loop] == ["ld"] * 7 + ["st"] * 4 + ["bar"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_axis_input_gradient_stores_only_after_its_loop(compiled, dtype: torch.dtype) -> None:
    ttgir = compiled(dtype, 56, 64, 2, True)["axis_input_gradient_kernel"]["ttgir"]
    loop, rest = ttgir[ttgir.index("scf.for") :].split("scf.yield", 1)
    assert "tt.load" in loop
    assert "tt.store" not in loop
    assert rest.count("tt.store") == rest.count("tt.load") == 1
