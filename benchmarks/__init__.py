"""Timings of the model, its operators and the suite against peers: ``python -m benchmarks NAME``."""
