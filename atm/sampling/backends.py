"""The choice of the sampling backend: by device, or by a call of ``use``."""

import functools
import warnings

BACKENDS = ("auto", "reference", "eager", "native", "triton")
_FASTEST = {"cpu": "native", "cuda": "triton"}
_chosen = "auto"


def use(name: str) -> None:
    """Sets the backend of all later sampling on the devices it supports; "auto" chooses by device.

    A compiled or exported model keeps the operator or the formula that it was traced with.
    Raises ValueError for an unknown name, or for a backend that cannot run on this machine.
    """
    global _chosen
    if name not in BACKENDS:
        raise ValueError(f"unknown sampling backend {name!r} (valid: {', '.join(BACKENDS)})")
    reasons = {device: unavailable(name, device) for device in _FASTEST}
    if all(reasons.values()):
        device = next(device for device, fastest in _FASTEST.items() if fastest == name)
        raise ValueError(f"the sampling backend {name!r} cannot run here: {reasons[device]}")
    _chosen = name


def chosen() -> str:
    """The name last passed to ``use``; "auto" at first."""
    return _chosen


def backend_for(device: str) -> str:
    """The backend that samples tensors of a device type ("cpu", "cuda", ...): one of BACKENDS except "auto".

    By default native on the CPU, triton on CUDA and eager on other devices. Where native or triton cannot run, eager
    takes their place and one warning says why.
    """
    if _chosen != "auto" and unavailable(_chosen, device) is None:
        return _chosen
    fastest = _FASTEST.get(device, "eager")
    reason = unavailable(fastest, device)
    if reason is None:
        return fastest
    _warn(f"sampling falls back to the slower backend 'eager' on {device}: {reason}")
    return "eager"


def describe(device: str) -> str:
    """The backend for a device type, for logs: its name, and its compiler or why a faster backend cannot run."""
    backend = backend_for(device)
    if backend == "native":
        from atm.sampling import native

        return f"native ({native.load().built_with})"
    reason = unavailable(_FASTEST.get(device, "eager"), device)
    return f"eager ({reason})" if backend == "eager" and reason and _chosen != "eager" else backend


@functools.cache
def unavailable(backend: str, device: str) -> str | None:
    """The reason why a backend cannot sample on a device type of this machine, or None if it can."""
    if backend == "native":
        from atm.sampling import native

        return native.unavailable() if device == "cpu" else f"it runs on the CPU, not on {device}"
    if backend == "triton":
        try:
            from atm.sampling import triton_backend
        except ImportError as error:
            return f"no Triton ({error})"
        return triton_backend.unavailable(device)
    return None


@functools.cache
def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=3)
