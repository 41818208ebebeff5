#!/bin/sh
# Build .venv, the launcher's environment, from requirements.lock. A second call does nothing when nothing changed.
# It needs Python 3.11 or newer (3.12 or 3.13 for the trainer, too) and git, and installs nothing outside this folder.
#   PYTHON=/path/to/python    use this interpreter
#   UV_DEFAULT_INDEX=...      a package mirror (uv does not read pip's settings)
set -eu
cd "$(dirname "$0")/.."
venv=.venv
: "${UV_PYTHON_DOWNLOADS:=never}"
export UV_PYTHON_DOWNLOADS

fail() {
    printf 'axosweep: %s\n' "$*" >&2
    exit 1
}

# Prints the minor version of a supported Python. Runs it, since a version manager's shim may lead to no Python.
minor_of() {
    "$1" -c 'import sys, venv
if sys.implementation.name != "cpython" or not (3, 11) <= sys.version_info[:2] <= (3, 13): raise SystemExit(1)
print(sys.version_info[1])' 2>/dev/null
}

# Prints the interpreter to use: 3.12 or 3.13 (they run everything) before 3.11 (it runs the launcher only).
find_python() {
    for wanted in '12 13' '11'; do
        for candidate in python3.13 python3.12 python3 python python3.11 \
            "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[123].*/bin/python \
            "${UV_PYTHON_INSTALL_DIR:-$HOME/.local/share/uv/python}"/cpython-3.1[123].*/bin/python; do
            minor=$(minor_of "$candidate") || continue
            case " $wanted " in *" $minor "*) ;; *) continue ;; esac
            printf '%s\n' "$candidate"
            return
        done
    done
    return 1
}

# Includes the folder, since an editable install and a venv both break when they are moved.
built_from() {
    pwd
    cat requirements.lock pyproject.toml
}

# Prints a uv that works: the environment's own, the user's, or the locked one, which pip installs into the environment.
find_uv() {
    for candidate in "$venv/bin/uv" uv; do
        case $("$candidate" --version 2>/dev/null) in
        'uv 0.'[0-8].*) ;; # too old to be trusted with these locks
        'uv '*)
            printf '%s\n' "$candidate"
            return
            ;;
        esac
    done
    awk '/^[^ #]/ { uv = /^uv==/ } uv' requirements.lock >"$venv/uv.lock"
    pip_failed="uv could not be installed with pip; its message is above. Can this machine reach a package index?"
    set -- install --quiet --disable-pip-version-check --no-deps --require-hashes -r "$venv/uv.lock"
    if "$venv/bin/python" -m ensurepip >/dev/null 2>&1; then
        "$venv/bin/python" -m pip "$@" >&2 || fail "$pip_failed"
    elif "$python" -m pip --version >/dev/null 2>&1; then
        "$python" -m pip --python "$venv/bin/python" "$@" >&2 || fail "$pip_failed"
    else
        fail "$python has neither ensurepip nor pip. Install one (on Debian and Ubuntu: apt install python3-venv), or uv."
    fi
    printf '%s\n' "$venv/bin/uv"
}

if [ -f "$venv/built-from" ] && built_from | cmp -s - "$venv/built-from" && "$venv/bin/python" -c '' 2>/dev/null; then
    exit 0
fi

command -v git >/dev/null 2>&1 || fail "git is missing. Install it (on Debian and Ubuntu: apt install git)."
if [ -n "${PYTHON:-}" ]; then
    minor_of "$PYTHON" >/dev/null || fail "PYTHON=$PYTHON is not a working CPython 3.11, 3.12 or 3.13 with the venv module."
    python=$PYTHON
else
    python=$(find_python) || fail "no working Python 3.12 or 3.13 found (3.11 runs the launcher alone). Looked at python3.13, python3.12, python3, python, python3.11 and the versions of pyenv and uv; name another with PYTHON=/path/to/python."
fi
free_kb=$(df -Pk . | awk 'NR == 2 { print $4 }')
[ "$free_kb" -gt 1000000 ] || fail "less than 1 GB is free here; the launcher environment needs about 0.6 GB."

rm -f "$venv/built-from"
minor_of "$venv/bin/python" >/dev/null || "$python" -m venv --clear --without-pip "$venv"
echo "axosweep: launcher environment (about 0.6 GB) in $venv, $("$venv/bin/python" --version)" >&2
uv=$(find_uv) || exit 1
"$uv" pip sync --quiet --python "$venv/bin/python" --require-hashes requirements.lock
"$uv" pip install --quiet --python "$venv/bin/python" --no-deps --no-build-isolation --editable .
built_from >"$venv/built-from"
