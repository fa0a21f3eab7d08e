# Sourced by dist_train.sh and dist_test.sh.
# launch SCRIPT [options]: starts $PROCESSES processes of tools/SCRIPT with $ARGUMENTS, of which the first is the config,
# or says what hinders it.

fail() {
    printf '%s: error: %s\n' "$(basename "$0")" "$1" >&2
    exit 1
}

launch() {
    case $PROCESSES in
        '' | *[!0-9]* | 0*) fail "the number of processes should be a whole number from 1 on, got '$PROCESSES'" ;;
    esac
    PORT=${PORT:-29500}
    # The first process listens there; (: < /dev/tcp) succeeds where somebody does already.
    if [ "${NODE_RANK:-0}" = 0 ] && (: </dev/tcp/127.0.0.1/"$PORT") 2>/dev/null; then
        fail "port $PORT is taken, by another training perhaps: choose a free one, as in PORT=$((PORT + 1)) $0 ..."
    fi
    TOOLS=$(cd "$(dirname "$0")" && pwd)
    export PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}"
    case ${ARGUMENTS[0]} in
        *::*) ;;
        # one process says what there is in its place, and not all of them
        *) [ -f "${ARGUMENTS[0]}" ] || exec "${PYTHON:-python}" "$TOOLS/$1" "${ARGUMENTS[@]}" ;;
    esac
    exec "${PYTHON:-python}" -m torch.distributed.run \
        --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
        --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="$PORT" --nproc_per_node="$PROCESSES" \
        "$TOOLS/$1" "${ARGUMENTS[@]}" --launcher pytorch "${@:2}"
}
