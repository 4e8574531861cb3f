#!/usr/bin/env bash
# Test and measure the package on a machine with a GPU, without a network:
#
#   bash tests/gpu.sh [--device cuda|cpu] [--fast] [--wheels DIR] [--out DIR]
#                     [--parts machine tests benchmark models quickstart]
#
# Without --wheels it sets up the environment as tests/run.sh does. With it, the active
# Python is used with the torch that it has, and what else is needed comes from the
# wheels in DIR, into a folder of its own. At most eight minutes on a GPU.
set -euo pipefail

wheels="" arguments=()
while [ $# -gt 0 ]; do
    case "$1" in
        --wheels)
            wheels="${2:?--wheels takes a folder of wheels}"
            shift
            ;;
        *) arguments+=("$1") ;;
    esac
    shift
done

. "$(dirname "${BASH_SOURCE[0]}")/../tools/setup_env.sh"
if [ -n "$wheels" ]; then
    PYTHON="$(command -v python3 || command -v python)"
    compgen -G "$wheels/*.whl" > /dev/null || fail "--wheels: $wheels has no wheels."
    site="$(mktemp -d)"
    trap 'rm -rf "$site"' EXIT
    "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir \
        --target "$site" "$wheels"/*.whl
    export PYTHON PYTHONPATH="$ROOT:$site${PYTHONPATH:+:$PYTHONPATH}"
elif "$ROOT/.venv/bin/python" -c 'import mmaction, polynl_mm, pytest' 2> /dev/null; then
    PYTHON="$ROOT/.venv/bin/python" # set up already
else
    set_up_environment tests
fi
"$PYTHON" -m polynl_mm.experiments.gpu_report ${arguments[@]+"${arguments[@]}"}
