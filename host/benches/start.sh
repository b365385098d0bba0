#!/usr/bin/env bash
# What a node costs before and beside its commands: start from the cache, idle memory, memory per key, KEYS over all
# vnodes. Prints each beside its target. See README.md.
# shellcheck disable=SC1091,SC2034,SC2154
set -u
cd "$(dirname "$0")/../.." || exit 1

usage() {
    cat <<'USAGE'
usage: start.sh [-n ROUNDS] [-k KEYS] [-b HOST_BINARY]
  -n  starts that are timed, 5 without it
  -k  keys for the memory per key, 1000000 without it
  -b  the node's binary, target/release/host without it
USAGE
}

rounds=5 keys=1000000 host=target/release/host
while getopts n:k:b:h option; do
    case $option in
        n) rounds=$OPTARG ;;
        k) keys=$OPTARG ;;
        b) host=$OPTARG ;;
        h) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
done
. host/benches/lib.sh
need redis-benchmark redis-cli awk curl
need_host

# memory FIELD: kilobytes of the node, such as VmRSS or RssAnon.
memory() { awk -v field="$1:" '$1 == field { print $2 }' "/proc/$node_pid/status"; }

# load KEYS: SET of so many different keys of 16 bytes, 100 bytes each.
load() {
    awk -v keys="$1" 'BEGIN {
        value = sprintf("%100s", ""); gsub(/ /, "x", value)
        for (i = 0; i < keys; i++) printf "*3\r\n$3\r\nSET\r\n$16\r\nkey:%012d\r\n$100\r\n%s\r\n", i, value
    }' | redis-cli -p "$node_port" --pipe >"$work/load.log" 2>&1 || { cat "$work/load.log" >&2; fail "loading failed"; }
    [ "$(redis-cli -p "$node_port" dbsize)" = "$1" ] || fail "DBSIZE is not $1 after loading"
}

# row LABEL VALUE UNIT MUST GOAL: smaller is better.
row() {
    awk -v label="$1" -v value="$2" -v unit="$3" -v must="$4" -v goal="$5" 'BEGIN {
        mark = must == "" ? "" : value <= goal ? "goal" : value <= must ? "must" : "above"
        bounds = must == "" ? "" : must " / " goal
        printf "%-52s %9.1f %-4s %-13s %s\n", label, value, unit, bounds, mark
    }'
}

services="--vnode kv --vnode ping --vnode counter"
machine
printf '%-52s %9s %-4s %s\n' "" "" "" "must / goal"

# The first start compiles the guests and keeps them.
# shellcheck disable=SC2086
start_node start $services
row "start, nothing compiled yet" "$node_ms" ms "" ""
stop "$node_pid"
for _ in $(seq "$rounds"); do
    # shellcheck disable=SC2086
    start_node start $services
    echo "$node_ms" >>"$work/starts"
    sleep 1
    memory VmRSS >>"$work/rss"
    memory RssAnon >>"$work/anon"
    stop "$node_pid"
done
row "start to 3 x 64 vnodes ready, from the cache" "$(median <"$work/starts")" ms 1000 200
row "idle memory, resident" "$(awk -v kb="$(median <"$work/rss")" 'BEGIN { print kb / 1024 }')" MiB 100 50
row "  of it private" "$(awk -v kb="$(median <"$work/anon")" 'BEGIN { print kb / 1024 }')" MiB "" ""

# One replica, as the peers that this is compared with have: on one node three would be three rows a key.
one=(--n 1 --r 1 --w 1)
start_node keys --vnode kv --storage memory "${one[@]}"
load 100000
# The time of one client that reads the whole answer.
millis=$(redis-benchmark -h 127.0.0.1 -p "$node_port" -c 1 -n 20 --csv KEYS '*' 2>/dev/null | awk -F, 'NR == 2 { gsub(/"/, ""); print $5 }')
row "KEYS on 100 k keys, median" "$millis" ms 49 15
stop "$node_pid"

start_node memory --vnode kv --storage memory "${one[@]}"
before=$(memory VmRSS)
load "$keys"
sleep 1
row "memory per key of 16 B + 100 B, $keys keys" "$(awk -v a="$before" -v b="$(memory VmRSS)" -v n="$keys" 'BEGIN { print (b - a) * 1024 / n }')" B 300 180
row "  of it bytes of keys and objects" "$(curl -s "$node_http/v1/vnodes" | tr ',{' '\n' | awk -F: -v n="$keys" '$1 == "\"bytes\"" { sum += $2 } END { print sum / n }')" B "" ""
stop "$node_pid"
