"""Selective recomputation: tensors that are cheap to compute are not kept for the backward pass, but computed again."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor

from atm.shortcuts import transformed


@contextmanager
def recomputation() -> Iterator[None]:
    """Within this context, operations do not keep ``recomputable`` tensors for their backward pass.

    The context has no effect without gradients, under a compiler (which decides itself what to keep), within the
    transforms of ``torch.func`` and dual levels, and inside other hooks on saved tensors, such as those of activation
    checkpointing.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling() or transformed() or _hooked():
        yield
        return
    registered: list[_Recomputable] = []

    def pack(saved: Tensor) -> _Saved | _View:
        memory = saved.untyped_storage().data_ptr()
        for tensor in registered:
            if tensor.occupies(memory):
                tensor.views += 1
                return _View(tensor, saved.shape, saved.stride(), saved.storage_offset())
        return _Saved(saved, saved._version)

    token = _registered.set(registered)
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, _unpack):
            yield
    finally:
        _registered.reset(token)


def recomputable(result: Tensor, function: Callable[..., Any], *args: Any) -> Tensor:
    """Returns ``result``; within ``recomputation``, the backward pass calls ``function(*args)`` to obtain it again.

    function: returns the same values in the same layout and in new memory, or a tuple whose first item is that tensor.
    It is called once for all operations that need the result. Every tensor that it reads must be among the arguments,
    which may be ``recomputable`` themselves. The backward pass raises RuntimeError if an argument was changed in place.
    """
    registered = _registered.get()
    if registered is not None and not result.is_meta:
        earlier = {id(tensor.result()): tensor for tensor in registered}
        registered.append(_Recomputable(result, function, tuple(earlier.get(id(arg), arg) for arg in args)))
    return result


_registered: ContextVar[list[_Recomputable] | None] = ContextVar("registered", default=None)


class _Recomputable:
    """A tensor that is not kept, and the call that computes it again."""

    def __init__(self, result: Tensor, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        # The allocator gives the memory to other tensors once the result is freed, so an address identifies the result
        # only while that is alive and unchanged.
        self.result, self.version = weakref.ref(result), result._version
        self.memory = result.untyped_storage().data_ptr()
        self.function = function
        self.args = tuple(_Saved(arg, arg._version) if isinstance(arg, Tensor) else arg for arg in args)
        self.device = result.device.type
        self.autocast = torch.is_autocast_enabled(self.device), torch.get_autocast_dtype(self.device)
        self.recomputed: Tensor | None = None
        self.views = self.fetched_views = 0

    def occupies(self, memory: int) -> bool:
        result = self.result()
        return memory == self.memory and result is not None and result._version == self.version

    def fetch(self) -> Tensor:
        """The recomputed tensor, held until every operation that needs it has fetched its view."""
        if self.recomputed is None:
            args = [arg.fetch() if isinstance(arg, (_Recomputable, _Saved)) else arg for arg in self.args]
            enabled, dtype = self.autocast
            with torch.no_grad(), torch.autocast(self.device, dtype, enabled=enabled):
                output = self.function(*args)
            self.recomputed = output[0] if isinstance(output, tuple) else output
        return self.recomputed


class _Saved(NamedTuple):
    """A tensor that is kept. With hooks on saved tensors, autograd no longer checks that it stays unchanged."""

    tensor: Tensor
    version: int

    def fetch(self) -> Tensor:
        if self.tensor._version != self.version:
            raise RuntimeError(
                f"a tensor {list(self.tensor.shape)} that the backward pass needs was changed in place after the "
                f"forward pass: it is at version {self.tensor._version}, not {self.version}"
            )
        return self.tensor


class _View(NamedTuple):
    """Kept in place of a tensor: which part of a recomputed tensor it is."""

    source: _Recomputable
    shape: torch.Size
    stride: tuple[int, ...]
    start: int


def _unpack(packed: _Saved | _View) -> Tensor:
    if isinstance(packed, _Saved):
        return packed.fetch()
    source = packed.source
    view = source.fetch().as_strided(packed.shape, packed.stride, packed.start)
    source.fetched_views += 1
    if source.fetched_views % source.views == 0:
        source.recomputed = None
    return view


def _hooked() -> bool:
    """Whether hooks on saved tensors are active already; autograd calls only the innermost ones."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
