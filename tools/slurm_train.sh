#!/usr/bin/env bash
# Train under Slurm: slurm_train.sh PARTITION JOB_NAME CONFIG [arguments of train.py]
# Environment: GPUS (8), GPUS_PER_NODE (8; 0 for CPU processes, then set
# TASKS_PER_NODE), CPUS_PER_TASK (5), PORT (random), SRUN_ARGS, PY_ARGS.
set -euo pipefail

if [ $# -lt 3 ]; then
    echo "Usage: $0 PARTITION JOB_NAME CONFIG [arguments of tools/train.py]" >&2
    exit 2
fi
PARTITION=$1
JOB_NAME=$2
CONFIG=$3
shift 3
. "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/launch_env.sh"
launch_slurm "$PARTITION" "$JOB_NAME" train.py "$CONFIG" --launcher slurm "$@"
