# shellcheck shell=bash disable=SC2034,SC2154
# Shared by the scripts beside it: starting and ending nodes, medians. Sourced, not run; $host is the node's binary.

# Ends only what was started here: process ids in $started, files in $work.
started=
work=$(mktemp -d "${TMPDIR:-/tmp}/vnode-bench.XXXXXX") || exit 1

end_all() {
    for pid in $started; do
        kill "$pid" 2>/dev/null
    done
    wait 2>/dev/null
    rm -rf "$work"
}
trap end_all EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

need() {
    for tool in "$@"; do
        command -v "$tool" >/dev/null || fail "$tool is missing; Debian's packages redis-tools and curl have what is needed"
    done
}

need_host() {
    [ -x "$host" ] || fail "$host is missing; run 'make build' first, or give another binary with -b"
}

# start_node NAME FLAGS...: starts a node on free ports and waits until it is ready.
# Sets node_pid, node_port, node_http and node_ms (from the start of the process to its banner).
# The data directory is $work/NAME, so that a second start finds what the first one left.
start_node() {
    local name=$1 log=$work/$1.log begun
    shift
    rm -f "$log"
    begun=$(date +%s%N)
    "$host" --port 0 --name "bench-$name" --data "$work/$name" --log warn "$@" >"$log" 2>&1 &
    node_pid=$!
    started="$started $node_pid"
    until grep -q '^ready ' "$log" 2>/dev/null; do
        kill -0 "$node_pid" 2>/dev/null || { cat "$log" >&2; fail "the node did not start"; }
        sleep 0.002
    done
    node_ms=$((($(date +%s%N) - begun) / 1000000))
    node_port=$(sed -n 's/^resp *[^ ]*:\([0-9]*\).*/\1/p' "$log" | head -1)
    node_http=$(sed -n 's/^http *\(http:[^ ]*\).*/\1/p' "$log" | head -1)
    [ -n "$node_port" ] || { cat "$log" >&2; fail "the node did not say where it listens"; }
}

# stop PID: ends a process that was started here and waits for it.
stop() {
    kill "$1" 2>/dev/null
    wait "$1" 2>/dev/null
    started=$(echo " $started " | sed "s/ $1 / /")
}

# Median of the numbers on standard input.
median() {
    sort -g | awk '{ v[NR] = $1 } END { if (NR) print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

machine() {
    echo "$(nproc) cores, $(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -1), load $(cut -d' ' -f1 /proc/loadavg), $(date -u +%Y-%m-%dT%H:%MZ)"
    echo "$("$host" --version)  $(sha256sum "$host" | cut -c1-12)"
}
