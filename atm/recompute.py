"""Forgetting between forward and backward pass what is cheaper to compute again than to keep."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor


@contextmanager
def forgetting() -> Iterator[None]:
    """Within it, operations keep nothing of what was ``remade`` for their backward pass.

    It changes nothing without gradients, where a compiler decides what to keep, within ``torch.func``'s transforms, and
    where somebody else's hooks on saved tensors are at work already, as those of activation checkpointing.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling() or transformed() or _hooked():
        yield
        return
    made: list[_Forgotten] = []

    def pack(saved: Tensor) -> _Kept | _View:
        memory = saved.untyped_storage().data_ptr()
        for forgotten in made:
            if forgotten.occupies(memory):
                forgotten.wanted += 1
                return _View(forgotten, saved.shape, saved.stride(), saved.storage_offset())
        return _Kept(saved, saved._version)

    token = _made.set(made)
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, _unpack):
            yield
    finally:
        _made.reset(token)


def remade(result: Tensor, function: Callable[..., Any], *args: Any) -> Tensor:
    """Returns ``result``; within ``forgetting``, the backward pass calls ``function(*args)`` for it, once for all.

    function: returns the same values in the same layout, in memory of its own, or a tuple of which that is the first.
    Tensors it reads must be among the arguments, which may themselves have been ``remade``: if one is changed in place
    before the backward pass, that raises RuntimeError.
    """
    made = _made.get()
    if made is not None and not result.is_meta:
        forgotten = {id(f.result()): f for f in made}
        made.append(_Forgotten(result, function, tuple(forgotten.get(id(arg), arg) for arg in args)))
    return result


@torch.jit.unused
def transformed() -> bool:
    """Whether a transform of ``torch.func`` is at work, which knows neither hooks on saved tensors nor our operator."""
    return not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None


_made: ContextVar[list[_Forgotten] | None] = ContextVar("made", default=None)


class _Forgotten:
    """A tensor that is not kept, and how to make it again."""

    def __init__(self, result: Tensor, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        # Memory is given to other tensors once the result is gone: it may stand for the result only until then,
        # and only as long as the result is what was computed.
        self.result, self.version = weakref.ref(result), result._version
        self.memory = result.untyped_storage().data_ptr()
        self.function = function
        self.args = tuple(_Kept(arg, arg._version) if isinstance(arg, Tensor) else arg for arg in args)
        self.device = result.device.type
        self.autocast = torch.is_autocast_enabled(self.device), torch.get_autocast_dtype(self.device)
        self.again: Tensor | None = None
        self.wanted = self.fetched = 0

    def occupies(self, memory: int) -> bool:
        result = self.result()
        return memory == self.memory and result is not None and result._version == self.version

    def fetch(self) -> Tensor:
        """The tensor made again, kept until everybody who wants it has had it."""
        if self.again is None:
            args = [arg.fetch() if isinstance(arg, (_Forgotten, _Kept)) else arg for arg in self.args]
            enabled, dtype = self.autocast
            with torch.no_grad(), torch.autocast(self.device, dtype, enabled=enabled):
                made = self.function(*args)
            self.again = made[0] if isinstance(made, tuple) else made
        return self.again


class _Kept(NamedTuple):
    """A tensor that is kept. Autograd leaves it to whoever packs a tensor to see that it does not change."""

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
    """What is kept instead: enough to cut a saved tensor out of the one made again."""

    of: _Forgotten
    shape: torch.Size
    stride: tuple[int, ...]
    start: int


def _unpack(kept: _Kept | _View) -> Tensor:
    if isinstance(kept, _Kept):
        return kept.fetch()
    forgotten = kept.of
    view = forgotten.fetch().as_strided(kept.shape, kept.stride, kept.start)
    forgotten.fetched += 1
    if forgotten.fetched % forgotten.wanted == 0:
        forgotten.again = None
    return view


def _hooked() -> bool:
    """Whether saved tensors go through hooks already; only the innermost ones would be called."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
