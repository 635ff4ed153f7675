"""Sweeps on Slurm: resources, submissions, and what a job does. Only a running job imports torch."""
