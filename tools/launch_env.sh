# Sourced by dist_*.sh and slurm_*.sh: which Python, PYTHONPATH, and `launch`.

TOOLS="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
ROOT="$(dirname "$TOOLS")"

fail() {
    echo "Error: $*" >&2
    exit 2
}

# Whether the user has activated an environment, which then goes before .venv.
is_environment_active() {
    [ -n "${VIRTUAL_ENV:-}" ] || [ "${POLYNL_ENV:-}" = active ] ||
        # conda's base is active in every shell of many machines: nobody's choice.
        { [ -n "${CONDA_PREFIX:-}" ] && [ "${CONDA_DEFAULT_ENV:-base}" != base ]; }
}

if [ -z "${PYTHON:-}" ]; then
    if ! is_environment_active && [ -x "$ROOT/.venv/bin/python" ]; then
        PYTHON="$ROOT/.venv/bin/python"
    else
        PYTHON="$(command -v python || command -v python3)" ||
            fail "there is no python here; activate an environment, or set PYTHON."
    fi
fi
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"

# check_number NAME LOW HIGH: end if a variable is set and is no number of the range.
check_number() {
    local value=${!1:-}
    case $value in
        '') return ;;
        *[!0-9]* | ??????*) ;;
        *) ((10#$value < $2 || 10#$value > $3)) || return 0 ;;
    esac
    fail "$1 must be a number from $2 to $3, not '$value'."
}

# launch PROCESSES TOOL [arguments]: run a tool of this folder under torchrun.
launch() {
    local processes=$1 tool=$2 cores
    shift 2
    case $processes in
        '' | *[!0-9]* | 0* | ?????*)
            fail "GPUS must be a number of processes from 1 to 9999, not '$processes'."
            ;;
    esac
    check_number NNODES 1 9999
    check_number NODE_RANK 0 9999
    check_number PORT 1 65535
    check_number OMP_NUM_THREADS 1 9999
    if [ -z "${OMP_NUM_THREADS:-}" ]; then
        cores=$(nproc)
        export OMP_NUM_THREADS=$((cores > processes ? cores / processes : 1))
    fi
    export MKL_NUM_THREADS="${MKL_NUM_THREADS:-$OMP_NUM_THREADS}"
    if [ "${NNODES:-1}" != 1 ] && [ -z "${MASTER_ADDR:-}" ]; then
        fail "NNODES=$NNODES needs MASTER_ADDR, the address of the first machine" \
            "(and NODE_RANK, 0 on that machine)."
    fi
    local rendezvous
    if [ "${NNODES:-1}" = 1 ] && [ -z "${PORT:-}" ]; then
        # A free port: two jobs on one machine do not meet.
        rendezvous=(--standalone)
    else
        rendezvous=(
            --nnodes="${NNODES:-1}"
            --node_rank="${NODE_RANK:-0}"
            --master_addr="${MASTER_ADDR:-127.0.0.1}"
            --master_port="${PORT:-29500}"
        )
    fi
    # exec: Ctrl-C and TERM reach the launcher itself, which ends all ranks.
    exec "$PYTHON" "$TOOLS/launch.py" "${rendezvous[@]}" \
        --nproc_per_node="$processes" "$TOOLS/$tool" "$@"
}

# launch_slurm PARTITION JOB_NAME TOOL [arguments]: run a tool under srun.
launch_slurm() {
    local partition=$1 job_name=$2 tool=$3
    shift 3
    local tasks=${GPUS:-8} gpus_per_node=${GPUS_PER_NODE:-8}
    local per_node=${TASKS_PER_NODE:-$gpus_per_node}
    local resources=(--ntasks="$tasks" --cpus-per-task="${CPUS_PER_TASK:-5}")
    [ "$gpus_per_node" = 0 ] || resources+=(--gres="gpu:$gpus_per_node")
    [ "$per_node" = 0 ] || resources+=(--ntasks-per-node="$per_node")
    export MASTER_PORT="${MASTER_PORT:-${PORT:-$((12000 + RANDOM % 20000))}}"
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" MKL_NUM_THREADS="${MKL_NUM_THREADS:-1}"
    # SRUN_ARGS and PY_ARGS hold several words each, on purpose.
    # shellcheck disable=SC2086
    exec srun -p "$partition" --job-name="$job_name" "${resources[@]}" \
        --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
        "$PYTHON" -u "$TOOLS/$tool" "$@" ${PY_ARGS:-}
}
