"""Which backend samples: chosen by device, or by whoever calls ``use``."""

import functools
import warnings

BACKENDS = ("auto", "reference", "eager", "native", "triton")
_FASTEST = {"cpu": "native", "cuda": "triton"}
_chosen = "auto"


def use(name: str) -> None:
    """Makes every sampling from now on use this backend, on the devices it knows; "auto" chooses by device.

    A model that was compiled or exported keeps to the operator or to the formula, whichever it was traced with.
    Raises ValueError for an unknown name, or for a backend that cannot run on this machine.
    """
    global _chosen
    if name not in BACKENDS:
        raise ValueError(f"unknown sampling backend {name!r} (valid: {', '.join(BACKENDS)})")
    reasons = {device: unavailable(name, device) for device in _FASTEST}
    if all(reasons.values()):
        own = next(device for device, fastest in _FASTEST.items() if fastest == name)
        raise ValueError(f"the sampling backend {name!r} cannot run here: {reasons[own]}")
    _chosen = name


def chosen() -> str:
    """What was last given to ``use``, at first "auto"."""
    return _chosen


def backend_for(device: str) -> str:
    """The backend that samples tensors of a device type ("cpu", "cuda", ...): one of BACKENDS but "auto".

    Without another choice native on the CPU and triton on CUDA; eager elsewhere, and where those cannot run, which is
    warned of once.
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
    """The backend for a device type as a log tells it: its name, and what it was built with or is missing."""
    backend = backend_for(device)
    if backend == "native":
        from atm.sampling import native

        return f"native ({native.load().built_with})"
    reason = unavailable(_FASTEST.get(device, "eager"), device)
    return f"eager ({reason})" if backend == "eager" and reason and _chosen != "eager" else backend


@functools.cache
def unavailable(backend: str, device: str) -> str | None:
    """Why a backend cannot sample on a device type of this machine, None where it can."""
    if backend == "native":
        from atm.sampling import native

        return native.unavailable() if device == "cpu" else f"it knows the CPU, not {device}"
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
