#!/bin/bash

# Parameters
#SBATCH --account=vision
#SBATCH --array=0-13%4
#SBATCH --chdir=TMP/runs/code/COPY
#SBATCH --constraint='a100|h100'
#SBATCH --cpus-per-task=8
#SBATCH --error=TMP/runs/slurm/ID/%A_%a_0_log.err
#SBATCH --exclude=node7
#SBATCH --exclusive
#SBATCH --gpus-per-node=2
#SBATCH --job-name=ablation_offsets.ID.0
#SBATCH --mem=65536M
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=2
#SBATCH --open-mode=append
#SBATCH --output=TMP/runs/slurm/ID/%A_%a_0_log.out
#SBATCH --partition=gpu
#SBATCH --qos=normal
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=600

# setup
module load cuda

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output TMP/runs/slurm/ID/%A_%a_%t_log.out --error TMP/runs/slurm/ID/%A_%a_%t_log.err --cpus-per-task=8 --export=ALL --kill-on-bad-exit=0 sh -c 'trap "" USR2 TERM; exec "$0" "$@"' PYTHON -u -m submitit.core._submit TMP/runs/slurm/ID
