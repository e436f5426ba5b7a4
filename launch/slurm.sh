#!/usr/bin/env bash
# Trains on the GPUs of a Slurm cluster. From the clone, on a file system that all nodes
# share:
#
#   sbatch launch/slurm.sh --config FILE --workdir DIR [--config.KEY=VALUE ...]
#   sbatch --nodes=4 --gpus-per-node=8 --ntasks-per-node=8 launch/slurm.sh ...
#
#   RESTARTS=100   how often the job is put into the queue again (default: 100)
#
# All arguments are those of `painformer pretrain`. The environment (.venv) is made by
# the first job; where nodes have no network, make it before:
# `bash -c '. launch/venv.sh; make_venv cuda'`.
#
# One process a GPU, as JAX takes them under Slurm: each sees all GPUs of its node and
# keeps the one of its number, so no --gpus-per-task.
#SBATCH --job-name=painformer
#SBATCH --nodes=1
#SBATCH --gpus-per-node=4
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
# The processes, not this script, get SIGTERM ten minutes before the time is up. They save
# and end with exit status 130, and the job goes into the queue again, as it does when
# it is preempted, or a node or a process dies. The run resumes from its last checkpoint.
#SBATCH --signal=TERM@600
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
cd -- "${SLURM_SUBMIT_DIR:?start this with sbatch, from the clone}"
. launch/venv.sh
make_venv cuda

# Since Slurm 22.05 srun does not take it from sbatch: a process would have one CPU.
[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"
status=0
srun --kill-on-bad-exit=1 "$root/launch/with.sh" gpu \
  "$venv/bin/python" -m painformer_jax pretrain --distributed "$@" || status=$?

# 2: the run was refused, and would be again. `scancel` ends this script before it is here.
case $status in 0 | 2) exit "$status" ;; esac
if [ "${SLURM_RESTART_COUNT:-0}" -ge "${RESTARTS:-100}" ]; then
  echo "slurm.sh: in the queue ${SLURM_RESTART_COUNT} times already; no more" >&2
  exit "$status"
fi
echo "slurm.sh: ended with exit status $status; into the queue again" >&2
scontrol requeue "$SLURM_JOB_ID"
