#!/usr/bin/env bash
# Make .venv/ from requirements.lock, or (`setup.sh lock`) the lock from pyproject.toml.
# uv lives in .tools/, apart from the project: it is a tool, not a dependency.
set -euo pipefail
cd "$(dirname "$0")/.."
UV_VERSION=0.13.9

if [ ! -x .tools/bin/uv ]; then
    python3 -m venv .tools || {
        echo "setup: 'python3 -m venv' failed; on Debian: apt-get install python3-venv" >&2
        exit 1
    }
    .tools/bin/pip install --quiet "uv==$UV_VERSION"
fi

# uv trips over pyenv's shims, so name an interpreter by its own path: PATH, then pyenv, then let uv fetch one.
find_python() {
    local candidate
    for candidate in python3.12 python3 python3.13 \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12*/bin/python3 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[3-9]*/bin/python3; do
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 12)); ' 2>/dev/null &&
            "$candidate" -c 'import sys; print(sys.executable)' && return
    done
    echo 3.12
}

if [ "${1:-}" = lock ]; then
    .tools/bin/uv pip compile --quiet --universal --python-version 3.12 --python "$(find_python)" --no-header --no-annotate \
        --extra pipeline --extra train --extra deepspeed --extra dev pyproject.toml --output-file requirements.lock
    exit
fi

[ -x .venv/bin/python ] || .tools/bin/uv venv --quiet --python "$(find_python)" .venv
echo "setup: installing $(wc -l <requirements.lock) packages from requirements.lock (6 GB with CUDA on Linux, once)"
# Where Python may not write bytecode later, each command would compile torch anew.
.tools/bin/uv pip sync --quiet ${PYTHONDONTWRITEBYTECODE:+--compile-bytecode} --python .venv/bin/python requirements.lock
.tools/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
touch .venv/.ready
