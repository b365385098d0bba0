#!/usr/bin/env bash
# How cost grows: commands per second of SET and GET against connections, pipeline depth, value size, number of keys, ring size,
# services and nodes, one at a time, and memory beside them. Prints Markdown tables; with -o, graphs too. See README.md.
# shellcheck disable=SC1091,SC2034,SC2154
set -u
cd "$(dirname "$0")/../.." || exit 1

usage() {
    cat <<'USAGE'
usage: growth.sh [-s SECONDS] [-b HOST_BINARY] [-o DIR] [-m "WHAT ..."]
  -s  about how long one measurement takes, 1 s without it
  -b  the node's binary, target/release/host without it
  -o  draws a graph for each table into this folder
  -m  only these: connections pipeline value keys ring services nodes
USAGE
}

seconds=1 host=$PWD/target/release/host out= what="connections pipeline value keys ring services nodes"
while getopts s:b:o:m:h option; do
    case $option in
        s) seconds=$OPTARG ;;
        b) host=$OPTARG ;;
        o) out=$OPTARG ;;
        m) what=$OPTARG ;;
        h) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
done
. host/benches/lib.sh
need redis-benchmark redis-cli awk
need_host
[ -z "$out" ] || mkdir -p "$out"

rate() { # PORT TEST CONNECTIONS PIPELINE BYTES KEYS REQUESTS
    redis-benchmark -p "$1" -t "$2" -c "$3" -P "$4" -d "$5" -r "$6" -n "$7" --csv 2>/dev/null |
        awk -F'","' 'NR > 1 { gsub(/"/, ""); split($0, f, ","); print f[2] }' | tail -1
}

# measure PORT CONNECTIONS PIPELINE BYTES KEYS: SETs and GETs a second, each of about $seconds, which a short run before it makes known.
measure() {
    local test probe
    for test in set get; do
        probe=$(rate "$1" $test "$2" "$3" "$4" "$5" $(($2 * $3 * 4 + 2000)))
        rate "$1" $test "$2" "$3" "$4" "$5" "$(awk -v r="${probe:-1000}" -v s="$seconds" -v b="$(($2 * $3))" 'BEGIN { n = r * s; print int(n < b ? b : n) }')"
    done
}

resident_kib() { awk '/^VmRSS/ { print $2 }' "/proc/$1/status"; }

# begin NAME COLUMN NOTE: a table; what rows say goes to it and into the graph.
begin() {
    table=$work/$1.tsv
    : >"$table"
    printf '\n### %s\n\n%s\n\n| %s | SET/s | GET/s | resident MiB |\n|---:|---:|---:|---:|\n' "$2" "$3" "$2"
}

row() { # X SET GET MIB
    echo "$1	$2	$3" >>"$table"
    printf '| %s | %.0f | %.0f | %.0f |\n' "$@"
}

# draw NAME TITLE: rate over the quantity, both on logarithmic scales.
draw() {
    [ -n "$out" ] || return 0
    awk -F'\t' -v title="$2" -f host/benches/graph.awk "$work/$1.tsv" >"$out/$1.svg"
}

# On the node of before: five quantities need no other one.
node() {
    start_node "$@"
    node_rss=$(resident_kib "$node_pid")
}

mib() { awk -v k="$(resident_kib "$node_pid")" 'BEGIN { print k / 1024 }'; }

machine
echo "Values of 100 bytes, keys below 100 000, 50 connections, no pipeline, memory, n=1, 64 partitions, one service, one node, unless the line says otherwise."

for one in $what; do
    case $one in
        connections)
            node "$one" --vnode kv --n 1 --storage memory
            begin "$one" connections "A client that waits for each reply on each connection."
            for x in 1 2 5 10 20 50 100 200 500 1000 2000; do
                mapfile -t r < <(measure "$node_port" "$x" 1 100 100000)
                row "$x" "${r[0]}" "${r[1]}" "$(mib)"
            done
            draw "$one" "connections"
            stop "$node_pid"
            ;;
        pipeline)
            node "$one" --vnode kv --n 1 --storage memory
            begin "$one" "commands in a pipeline" "50 connections."
            for x in 1 2 4 8 16 32 64 128 256; do
                mapfile -t r < <(measure "$node_port" 50 "$x" 100 100000)
                row "$x" "${r[0]}" "${r[1]}" "$(mib)"
            done
            draw "$one" "commands in a pipeline"
            stop "$node_pid"
            ;;
        value)
            node "$one" --vnode kv --n 1 --storage memory
            begin "$one" "bytes of a value" "Keys below 1000, so that all of a size fit."
            for x in 16 100 1000 10000 100000 1000000; do
                mapfile -t r < <(measure "$node_port" 50 1 "$x" 1000)
                row "$x" "${r[0]}" "${r[1]}" "$(mib)"
            done
            draw "$one" "bytes of a value"
            stop "$node_pid"
            ;;
        keys)
            node "$one" --vnode kv --n 1 --storage memory
            begin "$one" keys "Pipelines of 16; the node holds so many keys (most of them: random writes miss some) of 16 bytes."
            for x in 10000 100000 1000000 10000000; do
                rate "$node_port" set 50 64 100 "$x" $((x * 3)) >/dev/null
                mapfile -t r < <(measure "$node_port" 50 16 100 "$x")
                row "$x" "${r[0]}" "${r[1]}" "$(mib)"
            done
            draw "$one" "keys"
            stop "$node_pid"
            ;;
        ring)
            begin "$one" partitions "Pipelines of 16. Each partition has an instance of the guest: the last column grows by them."
            for x in 16 64 256 1024 4096; do
                node "$one-$x" --vnode kv --n 1 --storage memory --ring-size "$x"
                mapfile -t r < <(measure "$node_port" 50 16 100 100000)
                row "$x" "${r[0]}" "${r[1]}" "$(mib)"
                stop "$node_pid"
            done
            draw "$one" "partitions"
            ;;
        services)
            begin "$one" services "Pipelines of 16; all load goes to kv, the others are there."
            for x in 1 2 3; do
                guests=(--vnode kv --vnode ping --vnode counter)
                node "$one-$x" "${guests[@]:0:$((x * 2))}" --n 1 --storage memory
                mapfile -t r < <(measure "$node_port" 50 16 100 100000)
                row "$x" "${r[0]}" "${r[1]}" "$(mib)"
                stop "$node_pid"
            done
            draw "$one" "services"
            ;;
        nodes)
            begin "$one" nodes "Pipelines of 16, all processes on this machine, all load through one of them; resident memory of that one."
            first= pids=
            for x in 1 2 4 8 16; do
                while [ "$(wc -w <<<"$pids")" -lt "$x" ]; do
                    node "$one-$(wc -w <<<"$pids")" --vnode kv --n 1 --storage memory ${first:+--join "$first" --auto-commit}
                    first=${first:-$node_http} front=${front:-$node_port} front_pid=${front_pid:-$node_pid}
                    pids="$pids $node_pid"
                done
                "$host" -e "$first" --timeout 120s cluster wait >/dev/null || fail "$x nodes do not become one cluster"
                mapfile -t r < <(measure "$front" 50 16 100 100000)
                node_pid=$front_pid
                row "$x" "${r[0]}" "${r[1]}" "$(mib)"
            done
            draw "$one" "nodes"
            for pid in $pids; do stop "$pid"; done
            ;;
        *) usage >&2; exit 2 ;;
    esac
done
