#!/usr/bin/env bash
# Train with several processes: dist_train.sh CONFIG GPUS [arguments of train.py]
# On a machine without GPUs, GPUS is the number of CPU processes.
# Several machines: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "Usage: $0 CONFIG GPUS [arguments of tools/train.py]" >&2
    exit 2
fi
CONFIG=$1
GPUS=$2
shift 2
. "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/launch_env.sh"
launch "$GPUS" train.py "$CONFIG" --launcher pytorch "$@"
