#!/usr/bin/env bash
# Extract features with several processes:
# dist_extract_features.sh CONFIG CHECKPOINT LIST GPUS [its arguments]
# On a machine without GPUs, GPUS is the number of CPU processes.
# Several machines: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
set -euo pipefail

if [ $# -lt 4 ]; then
    echo "Usage: $0 CONFIG CHECKPOINT LIST GPUS" \
        "[arguments of tools/extract_features.py]" >&2
    exit 2
fi
CONFIG=$1
CHECKPOINT=$2
LIST=$3
GPUS=$4
shift 4
. "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/launch_env.sh"
launch "$GPUS" extract_features.py "$CONFIG" "$CHECKPOINT" "$LIST" \
    --launcher pytorch "$@"
