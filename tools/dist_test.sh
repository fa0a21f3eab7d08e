#!/usr/bin/env bash
# dist_test.sh CONFIG CHECKPOINT PROCESSES [options of test.py]: one process a GPU, or without GPUs that many on the CPU.
# NNODES, NODE_RANK, MASTER_ADDR and PORT spread it over machines.
set -e
if [ $# -lt 3 ]; then sed -n '2,3s/^# //p' "$0" >&2; exit 2; fi
. "$(dirname "$0")/dist.sh"
ARGUMENTS=("$1" "$2") PROCESSES=$3
launch test.py "${@:4}"
