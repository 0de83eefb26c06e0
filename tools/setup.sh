#!/usr/bin/env bash
# Make .venv from requirements.lock and prove that torch, torchvision and Lightning load.
# Settings of pip and uv (PIP_*, UV_*) are respected; PYTHON=<path> chooses the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "setup: $*" >&2; exit 1; }

for python in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
  if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$python; break; fi
done
[ -n "${found:-}" ] || fail "needs Python 3.11 or newer; install it, or name one with PYTHON=<path>."
"$found" -c 'import ensurepip, venv' 2>/dev/null ||
  fail "$found has no venv module; install it (Debian and Ubuntu: the package python3-venv)."
if [ ! -x .venv/bin/python ]; then
  free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1048576) }')
  [ "$free" -ge 8 ] || fail "needs 8 GB of free disk for PyTorch and the rest; there are $free."
  echo "setup: making .venv with $("$found" --version); PyTorch is large, this can take minutes"
  "$found" -m venv .venv
fi

log=.venv/setup.log
quietly() { "$@" >"$log" 2>&1 || { tail -n 20 "$log" >&2; return 1; }; }

[ -x .venv/bin/uv ] || quietly .venv/bin/python -m pip install --quiet uv ||
  fail "could not install uv; is the package index reachable (PIP_INDEX_URL)?"
# uv does not read pip's settings; where it has none of its own, pass them on with pip's rule that
# all indexes count alike.
pip_setting() { .venv/bin/python -m pip config get "global.$1" 2>/dev/null || true; }
if [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}${UV_INDEX:-}${UV_CONFIG_FILE:-}" ]; then
  index=${PIP_INDEX_URL:-$(pip_setting index-url)}
  extra=${PIP_EXTRA_INDEX_URL:-$(pip_setting extra-index-url)}
  [ -z "$index" ] || export UV_DEFAULT_INDEX=$index
  [ -z "$extra" ] || export UV_INDEX=$extra UV_INDEX_STRATEGY=${UV_INDEX_STRATEGY:-unsafe-best-match}
fi
[ -n "${SSL_CERT_FILE:-}" ] || [ -z "${PIP_CERT:-}" ] || export SSL_CERT_FILE=$PIP_CERT
export VIRTUAL_ENV=$PWD/.venv
quietly .venv/bin/uv pip install -r requirements.lock ||
  fail "could not install requirements.lock; is the package index reachable, is there disk left?"
quietly .venv/bin/uv pip install --no-deps -e . || fail "could not install the package itself."
# Compiled once here, every later start saves seconds, also where Python may not write its caches.
# Some files of torch are written for newer Pythons; that they do not compile does not matter.
.venv/bin/python -m compileall -q -j 0 "$(.venv/bin/python -c 'import site; print(site.getsitepackages()[0])')" \
  >>"$log" 2>&1 || true
quietly .venv/bin/python -c 'import torch, torchvision, lightning' ||
  fail "PyTorch, torchvision or Lightning does not load; see above."
touch .venv/.ready
echo "setup: ready"
