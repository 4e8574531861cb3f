#!/usr/bin/env bash
# Evaluate with several processes:
# dist_test.sh CONFIG CHECKPOINT GPUS [arguments of test.py]
# On a machine without GPUs, GPUS is the number of CPU processes.
# Several machines: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
set -euo pipefail

if [ $# -lt 3 ]; then
    echo "Usage: $0 CONFIG CHECKPOINT GPUS [arguments of tools/test.py]" >&2
    exit 2
fi
CONFIG=$1
CHECKPOINT=$2
GPUS=$3
shift 3
. "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/launch_env.sh"
launch "$GPUS" test.py "$CONFIG" "$CHECKPOINT" --launcher pytorch "$@"
