#!/usr/bin/env bash
# dist_train.sh CONFIG PROCESSES [options of train.py]: one process a GPU, or without GPUs that many on the CPU.
# NNODES, NODE_RANK, MASTER_ADDR and PORT spread it over machines.
set -e
if [ $# -lt 2 ]; then sed -n '2,3s/^# //p' "$0" >&2; exit 2; fi
. "$(dirname "$0")/dist.sh"
ARGUMENTS=("$1") PROCESSES=$2
launch train.py "${@:3}"
