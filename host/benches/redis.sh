#!/usr/bin/env bash
# One node against redis-server, in turn, under redis-benchmark: SET and GET at pipelines of 1, 16 and 64.
# `routed` measures a node that owns nothing and sends every command on to another one; `quorum` and `three` keep three replicas of each
# key with r and w of two, on one node and on three.
# Prints medians and the median of each round's ratio beside the targets. See README.md.
# shellcheck disable=SC1091,SC2034,SC2154
set -u
cd "$(dirname "$0")/../.." || exit 1

usage() {
    cat <<'USAGE'
usage: redis.sh [-n ROUNDS] [-s SECONDS] [-b HOST_BINARY] [-m MODE] [-- FLAGS OF THE NODE]
  -n  rounds, 5 without it; a round measures each server once per line of the table
  -s  about how long one measurement takes, 1 s without it
  -b  the node's binary, target/release/host without it
  -m  only this: memory, disk, routed, quorum or three
USAGE
}

rounds=5 seconds=1 host=target/release/host modes="memory disk routed quorum three"
while getopts n:s:b:m:h option; do
    case $option in
        n) rounds=$OPTARG ;;
        s) seconds=$OPTARG ;;
        b) host=$OPTARG ;;
        m) modes=$OPTARG ;;
        h) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
done
shift $((OPTIND - 1))
. host/benches/lib.sh
need redis-benchmark redis-cli awk curl
need_host
results=$work/results

# Starts redis-server with the given flags on a free port; sets redis_pid and redis_port.
start_redis() {
    local tries=0
    mkdir -p "$work/redis"
    while [ $tries -lt 20 ]; do
        tries=$((tries + 1))
        redis_port=$((20000 + RANDOM % 10000))
        redis-server --port "$redis_port" --bind 127.0.0.1 --dir "$work/redis" --save "" "$@" >"$work/redis.log" 2>&1 &
        redis_pid=$!
        sleep 0.3
        # Another server may own the port: ask whether the one that answers is ours.
        if redis-cli -p "$redis_port" info server 2>/dev/null | tr -d '\r' | grep -qx "process_id:$redis_pid"; then
            started="$started $redis_pid"
            return
        fi
        kill "$redis_pid" 2>/dev/null
        wait "$redis_pid" 2>/dev/null
    done
    fail "redis-server does not start, see $(tail -1 "$work/redis.log")"
}

# bench PORT TEST PIPELINE REQUESTS: prints requests per second and p99 in milliseconds.
bench() {
    redis-benchmark -h 127.0.0.1 -p "$1" -t "$2" -P "$3" -n "$4" -c 50 -d 100 -r 100000 --csv 2>/dev/null |
        awk -F'","' 'NR > 1 { gsub(/"/, ""); split($0, f, ","); print f[2], f[7] }' | tail -1
}

# Requests of a measurement that takes about $seconds on the machines this was written on.
requests() {
    case $1 in
        1) echo $((100000 * seconds)) ;;
        16) echo $((480000 * seconds)) ;;
        *) echo $((640000 * seconds)) ;;
    esac
}

# one MODE ROUND SERVER PORT TEST PIPELINE: measures once and keeps the figures.
one() {
    local figures
    figures=$(bench "$4" "$5" "$6" "$(requests "$6")")
    [ -n "$figures" ] || fail "redis-benchmark got nothing from $3 ($5, -P $6)"
    echo "$1 $2 $3 $5 $6 $figures" >>"$results"
}

measure() {
    local mode=$1 round pipeline test
    for port in $ports; do
        redis-benchmark -h 127.0.0.1 -p "${port#*:}" -t set -P 16 -n 300000 -c 50 -d 100 -r 100000 -q >/dev/null 2>&1
    done
    for round in $(seq "$rounds"); do
        for pipeline in 1 16 64; do
            for test in set get; do
                # Whoever goes first changes with the round.
                for port in $(echo "$ports" | tr ' ' '\n' | if [ $((round % 2)) = 0 ]; then sort; else sort -r; fi); do
                    one "$mode" "$round" "${port%:*}" "${port#*:}" "$test" "$pipeline"
                done
            done
        done
        echo "$mode: round $round of $rounds" >&2
    done
}

targets() {
    case $1:$2 in
        memory:1) echo "0.9/0.95/1.0" ;;
        memory:16) echo "0.8/1.0/1.5" ;;
        memory:64) echo "0.8/1.2/2.0" ;;
        routed:1 | routed:16) echo "0.8/0.8/0.9" ;;
        routed:64) echo "0.8/0.8/1.2" ;;
        quorum:1 | three:1) echo "0.5/0.6/0.75" ;;
        quorum:* | three:*) echo "0.4/0.6/0.9" ;;
        disk:1) echo "0.9/0.95/1.0" ;;
        disk:16) echo "0.5/1.0/1.3" ;;
        disk:64) echo "0.5/1.0/1.5" ;;
    esac
}

pick() { awk -v m="$1" -v s="$2" -v t="$3" -v p="$4" -v f="$5" '$1 == m && $3 == s && $4 == t && $5 == p { print $f }' "$results"; }

table() {
    local mode=$1 pipeline test ours theirs ratio
    printf '\n%-22s %10s %10s %8s   %s\n' "$2" "host k/s" "redis k/s" "ratio" "first/bench/goal   p99 host, redis"
    for pipeline in 1 16 64; do
        for test in set get; do
            ours=$(pick "$mode" host "$test" "$pipeline" 6 | median)
            theirs=$(pick "$mode" redis "$test" "$pipeline" 6 | median)
            ratio=$(awk -v m="$mode" -v t="$test" -v p="$pipeline" '
                $1 == m && $4 == t && $5 == p { if ($3 == "host") a[$2] = $6; else b[$2] = $6 }
                END { for (r in a) if (b[r] > 0) print a[r] / b[r] }' "$results" | median)
            awk -v label="$(echo "$test" | tr '[:lower:]' '[:upper:]') P$pipeline" -v a="$ours" -v b="$theirs" -v r="$ratio" \
                -v goal="$(targets "$mode" "$pipeline")" \
                -v pa="$(pick "$mode" host "$test" "$pipeline" 7 | median)" \
                -v pb="$(pick "$mode" redis "$test" "$pipeline" 7 | median)" '
                BEGIN {
                    split(goal, g, "/")
                    mark = r == "" ? "" : r >= g[3] ? "goal" : r >= g[2] ? "bench" : r >= g[1] ? "first" : "below"
                    printf "%-22s %10.1f %10s %8s   %-13s %-5s %s ms%s\n", "  " label, a / 1000,
                        b == "" ? "-" : sprintf("%.1f", b / 1000), r == "" ? "-" : sprintf("%.2f", r),
                        goal, mark, pa, pb == "" ? "" : ", " pb " ms"
                }'
        done
    done
}

machine
if command -v redis-server >/dev/null; then redis-server --version; else echo "redis-server is not installed: no ratios"; fi
for mode in $modes; do
    flags="--vnode kv --n 1 --r 1 --w 1 --storage memory" redis_flags="--appendonly no" others=
    case $mode in
        memory) title="memory, none" ;;
        disk) flags="--vnode kv --n 1 --r 1 --w 1 --storage disk --sync interval" redis_flags="--appendonly yes --appendfsync everysec" title="interval, everysec" ;;
        routed) others=owner title="one hop, none" ;;
        quorum) flags="--vnode kv --n 3 --r 2 --w 2 --storage memory" title="n=3 on one, none" ;;
        three) flags="--vnode kv --n 3 --r 2 --w 2 --storage memory" others="first second" title="n=3 on three, none" ;;
        *) usage >&2; exit 2 ;;
    esac
    # The nodes besides the one that is measured; it joins the first of them.
    other_pids= join=
    for other in $others; do
        # shellcheck disable=SC2086
        start_node "$other" $flags $join "$@"
        other_pids="$other_pids $node_pid"
        [ -n "$join" ] || join="--join $node_http"
        [ "$mode" = routed ] || join="${join% --auto-commit} --auto-commit"
    done
    # shellcheck disable=SC2086
    start_node "$mode" $flags $join "$@"
    ports=host:$node_port
    if command -v redis-server >/dev/null; then
        # shellcheck disable=SC2086
        start_redis $redis_flags
        ports="$ports redis:$redis_port"
    fi
    for other in $others; do
        until curl -s "$node_http/v1/cluster" | grep -q "bench-$other"; do sleep 0.05; done
    done
    [ "$mode" = routed ] || "$host" -e "$node_http" cluster wait >/dev/null || fail "the cluster does not settle"
    measure "$mode"
    errors=$(curl -s "$node_http/metrics" 2>/dev/null | awk '/^vnode_commands_total/ && !/outcome="ok"/ { n += $2 } END { print n + 0 }')
    stop "$node_pid"
    for pid in $other_pids; do stop "$pid"; done
    [ -z "${redis_pid-}" ] || stop "$redis_pid"
    rm -rf "$work/redis" "${work:?}/$mode"
    for other in $others; do rm -rf "${work:?}/$other"; done
    table "$mode" "$title"
    echo "  commands of the node that failed: $errors"
done
