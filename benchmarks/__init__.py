"""Timings of the model's own operators against the ones they replace: ``python -m benchmarks NAME``."""
