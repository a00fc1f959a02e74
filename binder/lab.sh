#!/usr/bin/env bash
# Opens JupyterLab on the GPUs of this machine, or, where there is no NVIDIA driver, on simulated ones.
set -euo pipefail
cd "$(dirname "$0")/.."
arguments=(--ServerApp.root_dir=binder/notebooks)
if [ -z "${JUPYTER_GPU_SIMULATE:-}" ] && ! nvidia-smi -L >/dev/null 2>&1; then
  export JUPYTER_GPU_SIMULATE='4xNVIDIA A100-SXM4-40GB:40GiB'
  echo
  echo "  This machine has no NVIDIA driver: JupyterLab opens on four SIMULATED GPUs. Nothing is computed on a GPU."
  echo
fi
# For terminals in JupyterLab, where one writes `jupyter gpu`.
export PATH="$PWD/.venv/bin:$PATH"
if [ "$(id -u)" = 0 ]; then
  arguments+=(--allow-root)
fi
exec .venv/bin/jupyter lab "${arguments[@]}" "$@"
