"""Sweeps on Slurm: what is asked for, submitted and, inside a job, run. Nothing here imports torch but a job."""
