#!/usr/bin/env bash
# Sets up .venv when it is missing or out of date, then hands over to lib/run.py (Snakemake -> papermill).
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)"

# Everything that a tool would cache under HOME stays inside the repository.
export XDG_CACHE_HOME="$root/.cache" XDG_CONFIG_HOME="$root/.cache/config" XDG_DATA_HOME="$root/.cache/share"
export PIP_CACHE_DIR="$root/.cache/pip" MPLCONFIGDIR="$root/.cache/matplotlib" NUMBA_CACHE_DIR="$root/.cache/numba"
# Threads that wait for one another must not spin: on busy cores that costs ten times what it brings.
export OMP_WAIT_POLICY=PASSIVE
export IPYTHONDIR="$root/.cache/ipython" JUPYTER_CONFIG_DIR="$root/.cache/jupyter/config"
export JUPYTER_DATA_DIR="$root/.cache/jupyter/data" JUPYTER_RUNTIME_DIR="$root/.cache/jupyter/runtime"

dependencies_stamp() {
  { sed -n '/^requires-python/p; /^dependencies = \[/,/^\]/p' "$root/pyproject.toml"; echo "$root"; } | cksum
}

find_python() {
  for candidate in python3.11 python3 python; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
      echo "$candidate"; return
    fi
  done
  echo "run_all.sh: found no Python 3.11 on PATH, expected python3.11 (or: conda env create -f environment.yml, then --venv \$CONDA_PREFIX)" >&2
  exit 1
}

set_up() {
  if [ "$(cat "$root/.venv/stamp" 2>/dev/null)" = "$(dependencies_stamp)" ]; then return; fi
  echo "setting up .venv (a few minutes, once)" >&2
  [ -x "$root/.venv/bin/python" ] || "$(find_python)" -m venv "$root/.venv"
  "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$root" >&2
  dependencies_stamp > "$root/.venv/stamp"
}

venv=""
arguments=()
while [ $# -gt 0 ]; do
  case "$1" in
    --venv) [ $# -ge 2 ] || { echo "run_all.sh: --venv needs a PATH" >&2; exit 2; }
            venv="$2"; shift 2 ;;
    --venv=*) venv="${1#--venv=}"; shift ;;
    *) arguments+=("$1"); shift ;;
  esac
done

if [ -z "$venv" ]; then set_up; venv="$root/.venv"; fi
if [ ! -x "$venv/bin/python" ]; then
  echo "run_all.sh: --venv $venv: found no bin/python there, expected an environment" >&2; exit 2
fi
venv="$(cd "$venv" && pwd)"
export PATH="$venv/bin:$PATH" PYTHONPATH="$root"
exec "$venv/bin/python" -m lib.run ${arguments[@]+"${arguments[@]}"}
