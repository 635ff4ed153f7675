"""Sweeps on Slurm: what is asked for, submitted, watched and, inside a job, run. Nothing here imports torch but a job."""
