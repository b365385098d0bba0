#!/usr/bin/env bash
# Where the time of a command goes: flame graphs of a loaded node, and what each command costs in calls of the system, switches
# and allocations. See README.md.
# shellcheck disable=SC1091,SC2034,SC2154
set -u
cd "$(dirname "$0")/../.." || exit 1

usage() {
    cat <<'USAGE'
usage: profile.sh [-s SECONDS] [-p PIPELINE] [-n NODES] [-t TEST] [-b HOST_BINARY] [-o DIR]
  -s  how long to sample, 4 s without it
  -p  commands in a pipeline, 16 without it
  -n  nodes: 1 with one replica of each key, 3 with three; 1 without it
  -t  set or get, what redis-benchmark sends; set without it
  -b  the node's binary, target/release/host without it
  -o  where the graphs go, the working directory without it
USAGE
}

seconds=4 pipeline=16 nodes=1 test=set host=$PWD/target/release/host out=$PWD
while getopts s:p:n:t:b:o:h option; do
    case $option in
        s) seconds=$OPTARG ;;
        p) pipeline=$OPTARG ;;
        n) nodes=$OPTARG ;;
        t) test=$OPTARG ;;
        b) host=$OPTARG ;;
        o) out=$OPTARG ;;
        h) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
done
. host/benches/lib.sh
need redis-benchmark redis-cli
command -v perf >/dev/null || fail "perf is missing; Debian's package linux-perf has it"
command -v inferno-flamegraph >/dev/null || fail "inferno is missing; 'cargo install inferno' has it"
need_host
mkdir -p "$out"

# Commands so far. Each is counted by the node whose vnode ran it.
served() {
    for port in "${ports[@]}"; do
        redis-cli -p "$port" info stats
    done | awk -F: '/^total_commands_processed/ { n += $2 } END { printf "%.0f\n", n }'
}

# each EVENTS: how often these happen for a command, on all nodes together.
each() {
    local before after
    before=$(served)
    perf stat -x , -e "$1" -p "$all" -o "$work/counts" -- sleep "$seconds" || fail "perf did not count"
    after=$(served)
    awk -F, -v commands=$((after - before)) '$1 ~ /^[0-9]/ { n += $1 } END { printf "%.6f\n", n / commands }' "$work/counts"
}

# Where the allocator is entered. Counting slows the node down, which does not change how often a command does it.
allocations() {
    local made= entry
    for entry in mi_malloc_aligned mi_zalloc_aligned mi_realloc_aligned; do
        perf probe -q -x "$host" -a "vnode_profile:$entry=$entry" 2>/dev/null && made+=,vnode_profile:$entry
    done
    [ -n "$made" ] && each "${made#,}" | cut -c1-5 || echo "not counted: perf probe needs root"
    perf probe -q -d 'vnode_profile:*' 2>/dev/null
}

pids=() ports=()
flags=(--vnode kv --storage memory --n "$nodes")
[ "$nodes" -gt 1 ] && flags+=(--w 2 --r 2)
for node in $(seq "$nodes"); do
    join=()
    [ "$node" -gt 1 ] && join=(--join "$first" --auto-commit)
    start_node "$node" "${flags[@]}" "${join[@]}"
    [ "$node" -eq 1 ] && first=$node_http
    pids+=("$node_pid") ports+=("$node_port")
done
"$host" -e "$first" cluster wait >/dev/null || fail "the cluster did not settle"

redis-benchmark -p "$node_port" -t "$test" -c 50 -P "$pipeline" -d 100 -r 100000 -n 2000000000 -q >"$work/load" 2>&1 &
load=$!
started="$started $load"
sleep 3 # for caches and the processor's frequency; nothing is decided by it

name=$test-p$pipeline-nodes$nodes
all=$(IFS=,; echo "${pids[*]}")
perf record -q -F 499 --call-graph dwarf,16384 -p "$all" -o "$work/samples" -- sleep "$seconds" 2>"$work/perf" || { cat "$work/perf" >&2; fail "perf did not record"; }

machine
echo "for a command, on all nodes together:"
echo "  processor time      $(each task-clock | awk '{ printf "%.2f us", $1 * 1000 }')"
echo "  calls of the system $(each raw_syscalls:sys_enter | cut -c1-5)"
echo "  switches            $(each context-switches | cut -c1-5)"
echo "  allocations         $(allocations)"
for ((n = 0; n < nodes; n++)); do
    graph=$out/$name.svg title="$test, pipelines of $pipeline, n=$nodes"
    if [ "$nodes" -gt 1 ]; then
        graph=$out/$name-node$((n + 1)).svg
        title+=", $([ "${pids[n]}" = "$node_pid" ] && echo "the node with the clients" || echo "one of the others")"
    fi
    # The guest has no names: it was compiled as it was loaded. Data threads count as one, and how a thread starts is left out.
    perf script -i "$work/samples" --pid "${pids[n]}" --no-inline 2>/dev/null |
        inferno-collapse-perf 2>/dev/null |
        sed -E 's/^data-[0-9]+/data/; s/\[perf-[0-9]+\.map\]/guest/g; s/(;guest)+/;guest/g; s/\[unknown\]/cut off/g' |
        sed -E 's/;(clone3|start_thread|[^;]*thread_start|[^;]*call_once[^;]*|[^;]*begin_short_backtrace);/;/g' |
        sed -E 's/;(start_thread|[^;]*thread_start|[^;]*call_once[^;]*|[^;]*begin_short_backtrace);/;/g' >"$work/folded"
    inferno-flamegraph --title "$title" --colors rust --minwidth 0.3 --width 1400 "$work/folded" >"$graph" || fail "no graph was drawn"
    echo "$graph"
done
