# Sourced by quickstart.sh and tests/run.sh: `set_up_environment [tests]` finds or
# makes the Python environment, installs what is missing, and exports PYTHON.
#
# Environment: POLYNL_ENV=active uses the active environment instead of .venv; what
# is importable there (torch, mmengine, mmcv, mmaction2, decord) stays as it is.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

set_up_environment() {
    local groups=(stack "$@") stamp=""
    case "${POLYNL_ENV:-venv}" in
        active)
            PYTHON="$(command -v python || command -v python3 || true)"
            if ! is_supported_python "$PYTHON"; then
                fail "POLYNL_ENV=active needs an active Python 3.10 to 3.12, found ${PYTHON:-none}."
            fi
            ;;
        venv)
            make_venv
            PYTHON="$ROOT/.venv/bin/python"
            stamp="$ROOT/.venv/.polynl_mm-$(IFS=-; echo "${groups[*]}")"
            ;;
        *) fail "POLYNL_ENV must be 'active' or unset, not '$POLYNL_ENV'." ;;
    esac
    export PYTHON
    if [ -z "$stamp" ] || ! requirements_digest | cmp -s - "$stamp"; then
        install_packages "${groups[@]}"
        # Written last: an installation that was interrupted is done again.
        [ -z "$stamp" ] || requirements_digest > "$stamp"
    fi
}

fail() {
    echo "Error: $*" >&2
    exit 1
}

is_supported_python() {
    [ -n "$1" ] && "$1" -c '
import sys
sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' > /dev/null 2>&1
}

make_venv() {
    local python venv="$ROOT/.venv" marker="$ROOT/.venv/.made-by-polynl_mm"
    if is_supported_python "$venv/bin/python" &&
        "$venv/bin/python" -m pip --version > /dev/null 2>&1; then
        return
    fi
    if [ -n "$(ls -A "$venv" 2> /dev/null)" ] && [ ! -f "$marker" ]; then
        fail "$venv has no working pip with Python 3.10 to 3.12, and was not made" \
            "here: move it away, or activate an environment and set POLYNL_ENV=active."
    fi
    for python in python3 python3.12 python3.11 python3.10 python; do
        if is_supported_python "$python"; then
            echo "Environment: .venv, with $("$python" --version)"
            # The marker comes first and stays: what an interruption leaves is known
            # to be ours. `venv --clear` would remove it too.
            mkdir -p "$venv"
            touch "$marker"
            find "$venv" -mindepth 1 -maxdepth 1 ! -path "$marker" -exec rm -rf {} +
            "$python" -m venv "$venv" ||
                fail "'$python -m venv' does not work; install Python's venv module."
            return
        fi
    done
    fail "Python 3.10, 3.11 or 3.12 is needed and none was found; install one, or" \
        "activate an environment that has one and set POLYNL_ENV=active."
}

requirements_digest() {
    echo "$ROOT"
    cat "$ROOT"/requirements/*.txt "$ROOT/setup.py" "$ROOT/pyproject.toml" | cksum
}

install_packages() {
    local lines line pinned=() no_deps=()
    if ! "$PYTHON" -c 'import torch; torch.ones(1)' > /dev/null 2>&1; then
        refuse_broken_torch
        echo "Installing PyTorch (the largest download, it may take some minutes)"
        local torch
        torch="$(grep '^torch==' "$ROOT/requirements/stack.txt")"
        # PyPI's torch for Linux brings gigabytes of CUDA libraries.
        if has_gpu || is_pip_told_where || ! pip_try --retries 1 \
            --index-url https://download.pytorch.org/whl/cpu "$torch"; then
            pip_install "$torch"
        fi
    fi
    echo "Installing MMAction2 and the other packages"
    lines="$(requirements_to_install "$@")" || exit 1
    while read -r line; do
        case $line in
            install*) pinned+=("${line#* }") ;;
            no-deps*) no_deps+=("${line#* }") ;;
        esac
    done <<< "$lines"
    pip_install ${pinned[@]+"${pinned[@]}"} -e "$ROOT"
    [ "${#no_deps[@]}" = 0 ] || pip_install --no-deps "${no_deps[@]}"
}

has_gpu() {
    [ "$(uname -s)" != Linux ] || command -v nvidia-smi rocm-smi > /dev/null
}

# Whether the user's settings of pip name the place that packages come from.
is_pip_told_where() {
    local settings
    # Not piped into `grep -q`, which ends before pip has written all: with pipefail
    # that is a failure.
    settings="$("$PYTHON" -m pip config list 2> /dev/null || true)"
    grep -qE '(index-url|find-links|no-index)=' <<< "$settings"
}

# A torch of the user's that does not work is for the user to mend, not to replace.
refuse_broken_torch() {
    [ "${POLYNL_ENV:-venv}" = active ] || return 0
    if "$PYTHON" -c 'from importlib.util import find_spec
raise SystemExit(find_spec("torch") is None)'; then
        fail "torch is in the active environment but does not work:" \
            "$("$PYTHON" -c 'import torch; torch.ones(1)' 2>&1 | tail -n 1)"
    fi
}

pip_try() {
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-input "$@"
}

pip_install() {
    pip_try "$@" ||
        fail "pip could not install $*; the lines above say why. Run again to go on."
}

# Print 'install REQUIREMENT' or 'no-deps REQUIREMENT' for each line of the groups'
# files, but for what must stay as it is.
requirements_to_install() {
    POLYNL_ENV="${POLYNL_ENV:-venv}" "$PYTHON" - "$ROOT" "$@" << 'END'
import importlib
import os
import re
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

MODULES = {
    "torch": "torch",
    "mmengine": "mmengine",
    "mmcv-lite": "mmcv",
    "mmaction2": "mmaction",
    "decord": "decord",
}


def is_found(module):
    # A folder of that name without an __init__.py is no package.
    spec = find_spec(module)
    return spec is not None and spec.origin is not None


def check_import(module):
    """End with a sentence where what is found cannot be imported."""
    try:
        importlib.import_module(module)
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name or ""
        missing = missing.split(".")[0]
        if missing in to_come and not is_found(missing):
            return
        reason = (str(error).strip().splitlines() or [""])[-1]
        sys.exit(
            f"Error: {module} is in the active environment but cannot be imported: "
            f"{type(error).__name__}: {reason}"
        )


def is_installed(name):
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def must_stay(name):
    if name == "torch":
        return True
    if name not in MODULES or not is_found(MODULES[name]):
        return False
    # In .venv, only what provides a module under another name: a full mmcv, a fork.
    # Elsewhere, whatever is there.
    return os.environ["POLYNL_ENV"] == "active" or not is_installed(name)


def read_requirements(group):
    text = (Path(root) / "requirements" / f"{group}.txt").read_text(encoding="utf-8")
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return {re.split(r"[=<>!~ \[;]", line)[0]: line for line in lines if line}


root, *groups = sys.argv[1:]
sys.path[:] = [folder for folder in sys.path if folder]  # not the current folder
wanted = {}
for group in groups:
    wanted |= read_requirements(group)
# What a package that is there may lack because it is about to be installed.
to_come = {*MODULES.values(), *wanted, *read_requirements("runtime"), "pkg_resources"}
for name, line in wanted.items():
    if must_stay(name):
        if os.environ["POLYNL_ENV"] == "active" and name != "torch":
            check_import(MODULES[name])
        continue
    # mmcv-lite asks for mmengine by name, and would install it over a fork.
    fork = name == "mmcv-lite" and must_stay("mmengine")
    fork = fork and not is_installed("mmengine")
    print("no-deps" if fork else "install", line)
END
}
