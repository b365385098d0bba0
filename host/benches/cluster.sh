#!/usr/bin/env bash
# What clients and operators of a cluster feel: the tutorial's load on one node and on three, joins without data and with it, a node
# that is killed. Prints each beside its target. See README.md.
# shellcheck disable=SC1091,SC2034,SC2154
set -u
cd "$(dirname "$0")/../.." || exit 1

usage() {
    cat <<'USAGE'
usage: cluster.sh [-n ROUNDS] [-s SECONDS] [-k KEYS] [-b HOST_BINARY] [-m "WHAT ..."]
  -n  rounds, 5 without it; medians are printed
  -s  how long load is made at a time, 2 s without it
  -k  keys of the join with data, 1000000 without it
  -b  the node's binary, target/release/host without it
  -m  only these: load empty data disk kill
USAGE
}

storage=memory rounds=5 seconds=2 keys=1000000 host=$PWD/target/release/host what="load empty data disk kill"
while getopts n:s:k:b:m:h option; do
    case $option in
        n) rounds=$OPTARG ;;
        s) seconds=$OPTARG ;;
        k) keys=$OPTARG ;;
        b) host=$OPTARG ;;
        m) what=$OPTARG ;;
        h) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
done
. host/benches/lib.sh
need redis-benchmark redis-cli curl awk
need_host

# cluster COUNT FLAGS...: nodes that are one cluster, in memory or with the storage that is set. Sets pids and https; VNODE_ENDPOINT is the first.
cluster() {
    local count=$1 n join=()
    shift
    pids=() https=() ports=()
    for ((n = 1; n <= count; n++)); do
        start_node "c$n" --vnode kv --storage "$storage" "$@" "${join[@]}"
        pids+=("$node_pid") https+=("$node_http") ports+=("$node_port")
        join=(--join "${https[0]}" --auto-commit)
    done
    VNODE_ENDPOINT=${https[0]}
    export VNODE_ENDPOINT
    "$host" cluster wait >/dev/null || fail "the nodes do not become one cluster"
}

end_cluster() {
    for pid in "${pids[@]}"; do stop "$pid"; done
    rm -rf "$work"/c[0-9]*
}

# row LABEL VALUE UNIT BOUND KIND: the bound is the least that will do, or with KIND `most` the most.
row() {
    awk -v label="$1" -v value="$2" -v unit="$3" -v bound="$4" -v kind="${5-least}" 'BEGIN {
        good = kind == "most" ? value <= bound : value >= bound
        printf "%-58s %10.1f %-5s %-14s %s\n", label, value, unit, kind == "most" ? "at most " bound : "above " bound, good ? "yes" : "no"
    }'
}

# load LABEL BOUND ARGUMENTS OF BENCH...: thousands of operations a second, every answer checked.
load() {
    local label=$1 bound=$2 round
    shift 2
    : >"$work/rates"
    for round in $(seq "$rounds"); do
        "$host" bench run "$@" --duration "${seconds}s" --out "$work/load.$round" --format json >"$work/load.json" 2>"$work/load.err" ||
            { cat "$work/load.err" >&2; fail "$label: an answer was not true, or none came"; }
        awk -F: '/^  "rate_per_second"/ { print $2 / 1000; exit }' "$work/load.json" >>"$work/rates"
        rm -rf "$work/load.$round"
    done
    row "$label" "$(median <"$work/rates")" k/s "$bound"
}

# commit_ms: time from the commit of what is staged until all partitions are where they belong.
commit_ms() {
    local begun
    "$host" cluster plan >/dev/null
    begun=$(date +%s%N)
    "$host" cluster commit --wait 300s >"$work/commit.txt" 2>&1 || { cat "$work/commit.txt" >&2; fail "the cluster did not settle"; }
    echo $((($(date +%s%N) - begun) / 1000000))
}

machine
for part in $what; do
    case $part in
        load)
            # Beside them what riak_core_lite's rkv was seen to do on two cores of the same kind, called from another process.
            one=(--n 1 --r 1 --w 1)
            cluster 1 "${one[@]}"
            load "rkv, 2 workers, one node" 18.9 --workload rkv
            load "put, 64 workers, one node" 33 --workload write --workers 64
            load "get, 64 workers, one node" 45 --workload read --workers 64
            end_cluster
            cluster 3 "${one[@]}"
            load "rkv, 2 workers, three nodes" 9.1 --workload rkv
            load "put, 64 workers, three nodes" 27 --workload write --workers 64
            load "get, 64 workers, three nodes" 28 --workload read --workers 64
            end_cluster
            cluster 1 --n 3 --r 2 --w 2
            load "put, n=3 w=2, 64 workers, one node" 55 --workload write --workers 64
            load "get, n=3 r=2, 64 workers, one node" 44 --workload read --workers 64
            end_cluster
            ;;
        empty)
            : >"$work/empty"
            for _ in $(seq "$rounds"); do
                cluster 1
                start_node c2 --vnode kv --storage memory --join "${https[0]}"
                pids+=("$node_pid")
                commit_ms >>"$work/empty"
                end_cluster
            done
            row "join of an empty node, commit to settled" "$(median <"$work/empty")" ms 5000 most
            ;;
        data)
            : >"$work/moves"; : >"$work/slots"; : >"$work/lost"
            for _ in $(seq "$rounds"); do
                cluster 1 --n 1 --r 1 --w 1
                awk -v keys="$keys" 'BEGIN {
                    value = sprintf("%100s", ""); gsub(/ /, "x", value)
                    for (i = 0; i < keys; i++) printf "*3\r\n$3\r\nSET\r\n$16\r\nrow:%012d\r\n$100\r\n%s\r\n", i, value
                }' | redis-cli -p "${ports[0]}" --pipe >"$work/fill.log" 2>&1 || { cat "$work/fill.log" >&2; fail "loading failed"; }
                start_node c2 --vnode kv --storage memory --n 1 --r 1 --w 1 --join "${https[0]}"
                pids+=("$node_pid")
                "$host" bench run --workload rkv --workers 2 --node "127.0.0.1:${ports[0]}" --duration 10m --window 100ms \
                    --out "$work/join" >"$work/join.txt" 2>&1 &
                loading=$!
                started="$started $loading"
                until grep -q '^ *[1-9]' "$work/join.txt"; do sleep 0.05; done
                commit_ms >>"$work/moves"
                kill -INT "$loading"
                wait "$loading" || { tail -20 "$work/join.txt" >&2; fail "an answer was not true during the join"; }
                # The last window is shorter than the others.
                sed '1d;$d' "$work/join/summary.csv" | awk -F, '$4 == 0 { n++ } END { print n + 0 }' >>"$work/slots"
                redis-cli -p "$node_port" keys 'row:*' | wc -l | awk -v keys="$keys" '{ print keys - $1 }' >>"$work/lost"
                end_cluster
                rm -rf "$work/join"
            done
            row "join with $keys keys under load, commit to settled" "$(median <"$work/moves")" ms 4000 most
            row "  keys that were not there afterwards, all rounds" "$(awk '{ s += $1 } END { print s }' "$work/lost")" "" 0 most
            row "  slots of 100 ms without an answer, all rounds" "$(awk '{ s += $1 } END { print s }' "$work/slots")" "" 0 most
            ;;
        disk)
            # Half of two gigabytes on disk move while clients send a steady 5000 commands a second.
            : >"$work/moves"; : >"$work/rest"; : >"$work/during"; : >"$work/worst"
            for _ in $(seq "$rounds"); do
                storage=disk cluster 1 --n 1 --r 1 --w 1
                awk 'BEGIN {
                    value = sprintf("%1024s", ""); gsub(/ /, "x", value)
                    for (i = 0; i < 2000000; i++) printf "*3\r\n$3\r\nSET\r\n$16\r\nrow:%012d\r\n$1024\r\n%s\r\n", i, value
                }' | redis-cli -p "${ports[0]}" --pipe >"$work/fill.log" 2>&1 || { cat "$work/fill.log" >&2; fail "loading failed"; }
                start_node c2 --vnode kv --storage disk --n 1 --r 1 --w 1 --join "${https[0]}"
                pids+=("$node_pid")
                "$host" bench run --workload mixed --workers 16 --rate 5000 --keys 20000 --node "127.0.0.1:${ports[0]}" --duration 10m \
                    --out "$work/join" >"$work/join.txt" 2>&1 &
                loading=$!
                started="$started $loading"
                until grep -q '^ *8.0s' "$work/join.txt"; do sleep 0.05; done
                moved=$(commit_ms)
                echo "$moved" >>"$work/moves"
                sleep 1
                kill -INT "$loading"
                wait "$loading" || { tail -20 "$work/join.txt" >&2; fail "an answer was not true during the join"; }
                awk -F, -v end="$moved" -v rest="$work/r" -v during="$work/d" '
                    FNR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
                    $at["elapsed"] > 2 && $at["elapsed"] < 8 { print $at["p99"] / 1000 >rest }
                    $at["elapsed"] > 9 && $at["elapsed"] < 8 + end / 1000 { print $at["p99"] / 1000 >during }
                ' "$work/join/get_latencies.csv" "$work/join/set_latencies.csv"
                median <"$work/r" >>"$work/rest"
                median <"$work/d" >>"$work/during"
                sort -n "$work/d" | tail -1 >>"$work/worst"
                end_cluster
                rm -rf "$work/join"
            done
            row "join that moves 1 GB on disk, commit to settled" "$(median <"$work/moves")" ms 60000 most
            row "  p99 at rest, 5000 commands a second" "$(median <"$work/rest")" ms 1000 most
            row "  p99 meanwhile" "$(median <"$work/during")" ms "$(median <"$work/rest" | awk '{ print 3 * $1 }')" most
            row "  p99 of the worst second" "$(median <"$work/worst")" ms 1000 most
            ;;
        kill)
            : >"$work/outages"; : >"$work/waits"
            for _ in $(seq "$rounds"); do
                cluster 3
                # Its end is not the shell's business.
                disown "${pids[2]}"
                # Operations that are sent when they are due, so that those on the dead node's partitions do not hold up the others.
                "$host" bench run --workload mixed --workers 64 --keys 20000 --rate 2000 --node "127.0.0.1:${ports[0]}" --node "127.0.0.1:${ports[1]}" \
                    --duration 6s --window 50ms --during "2s:run kill -9 ${pids[2]}" --out "$work/kill" >"$work/kill.txt" 2>&1
                [ -f "$work/kill/summary.csv" ] || { cat "$work/kill.txt" >&2; fail "no report of the killed node"; }
                sed 1d "$work/kill/summary.csv" | awk -F, '$5 > 0 && $1 > 2 { last = $1 } END { print last ? (last - 2) * 1000 : 0 }' >>"$work/outages"
                # Column by name: both files are alike.
                awk -F, 'FNR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next } $at["elapsed"] > 2 && $at["max"] > most { most = $at["max"] } END { print most / 1000 }' \
                    "$work/kill/get_latencies.csv" "$work/kill/set_latencies.csv" >>"$work/waits"
                end_cluster
                rm -rf "$work/kill"
            done
            row "node killed: until no command fails any more" "$(median <"$work/outages")" ms 2000 most
            row "  the longest that a command waited" "$(median <"$work/waits")" ms 2000 most
            ;;
        *) usage >&2; exit 2 ;;
    esac
done
