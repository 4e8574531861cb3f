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
    local python
    if is_supported_python "$ROOT/.venv/bin/python" &&
        "$ROOT/.venv/bin/python" -m pip --version > /dev/null 2>&1; then
        return
    fi
    for python in python3 python3.12 python3.11 python3.10 python; do
        if is_supported_python "$python"; then
            echo "Environment: .venv, with $("$python" --version)"
            "$python" -m venv --clear "$ROOT/.venv" ||
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
        echo "Installing PyTorch (the largest download, it may take some minutes)"
        pip_install "$(grep '^torch==' "$ROOT/requirements/stack.txt")"
    fi
    echo "Installing MMAction2 and the other packages"
    lines="$(requirements_to_install "$@")"
    while read -r line; do
        case $line in
            install*) pinned+=("${line#* }") ;;
            no-deps*) no_deps+=("${line#* }") ;;
        esac
    done <<< "$lines"
    pip_install ${pinned[@]+"${pinned[@]}"} -e "$ROOT"
    [ "${#no_deps[@]}" = 0 ] || pip_install --no-deps "${no_deps[@]}"
}

pip_install() {
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-input "$@" ||
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
from pathlib import Path

MODULES = {
    "torch": "torch",
    "mmengine": "mmengine",
    "mmcv-lite": "mmcv",
    "mmaction2": "mmaction",
    "decord": "decord",
}


def is_importable(name):
    try:
        importlib.import_module(MODULES[name])
    except Exception:
        return False
    return True


def is_installed(name):
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def must_stay(name):
    # In .venv, only what provides a module under another name: a full mmcv, a fork.
    # Elsewhere, whatever is there.
    foreign = os.environ["POLYNL_ENV"] == "active" or not is_installed(name)
    return name == "torch" or (name in MODULES and foreign and is_importable(name))


root, *groups = sys.argv[1:]
for group in groups:
    text = (Path(root) / "requirements" / f"{group}.txt").read_text(encoding="utf-8")
    for line in (line.split("#")[0].strip() for line in text.splitlines()):
        name = re.split(r"[=<>!~ \[;]", line)[0]
        if not line or must_stay(name):
            continue
        # mmcv-lite asks for mmengine by name, and would install it over a fork.
        fork = name == "mmcv-lite" and must_stay("mmengine")
        fork = fork and not is_installed("mmengine")
        print("no-deps" if fork else "install", line)
END
}
