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
    """Within it, operations keep nothing of what ``recomputable`` returned for their backward pass.

    Without gradients, and where a compiler decides what to keep, it changes nothing.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        yield
        return
    made: list[_Forgotten] = []

    def pack(saved: Tensor) -> Tensor | _View:
        memory = saved.untyped_storage().data_ptr()
        for forgotten in made:
            if forgotten.occupies(memory):
                forgotten.wanted += 1
                return _View(forgotten, saved.shape, saved.stride(), saved.storage_offset())
        return saved

    token = _made.set(made)
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, _unpack):
            yield
    finally:
        _made.reset(token)


def recomputable(function: Callable[..., Any], *args: Any) -> Any:
    """``function(*args)``, which within ``forgetting`` is called again in the backward pass, once for all who want it.

    function: returns a tensor, or a tuple of which the first is meant; gives the same values in the same layout every
    time, in memory of its own. What it reads must not change before the backward pass. Arguments may themselves have
    come from here.
    """
    results = function(*args)
    made = _made.get()
    if made is not None and not _first(results).is_meta:
        forgotten = {id(f.result()): f for f in made}
        made.append(_Forgotten(_first(results), function, tuple(forgotten.get(id(arg), arg) for arg in args)))
    return results


def _first(results: Any) -> Tensor:
    return results[0] if isinstance(results, tuple) else results


_made: ContextVar[list[_Forgotten] | None] = ContextVar("made", default=None)


class _Forgotten:
    """A tensor that is not kept, and how to make it again."""

    def __init__(self, result: Tensor, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        # Memory is given to other tensors once the result is gone: it may stand for the result only until then.
        self.result = weakref.ref(result)
        self.memory = result.untyped_storage().data_ptr()
        self.function = function
        self.args = args
        self.device = result.device.type
        self.autocast = torch.is_autocast_enabled(self.device), torch.get_autocast_dtype(self.device)
        self.again: Tensor | None = None
        self.wanted = self.fetched = 0

    def occupies(self, memory: int) -> bool:
        return memory == self.memory and self.result() is not None

    def fetch(self) -> Tensor:
        """The tensor made again, kept until everybody who wants it has had it."""
        if self.again is None:
            args = [arg.fetch() if isinstance(arg, _Forgotten) else arg for arg in self.args]
            enabled, dtype = self.autocast
            with torch.no_grad(), torch.autocast(self.device, dtype, enabled=enabled):
                self.again = _first(self.function(*args))
        return self.again


class _View(NamedTuple):
    """What is kept instead: enough to cut a saved tensor out of the one made again."""

    of: _Forgotten
    shape: torch.Size
    stride: tuple[int, ...]
    start: int


def _unpack(kept: Tensor | _View) -> Tensor:
    if isinstance(kept, Tensor):
        return kept
    forgotten = kept.of
    view = forgotten.fetch().as_strided(kept.shape, kept.stride, kept.start)
    forgotten.fetched += 1
    if forgotten.fetched % forgotten.wanted == 0:
        forgotten.again = None
    return view
