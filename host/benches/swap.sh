#!/usr/bin/env bash
# Replaces the guest of three serving nodes again and again, there and back, under checked load, and prints what clients and vnodes
# felt of it. See README.md.
# shellcheck disable=SC1091,SC2034,SC2154
set -u
cd "$(dirname "$0")/../.." || exit 1

usage() {
    cat <<'USAGE'
usage: swap.sh [-n SWAPS] [-k KEYS] [-w WORKERS] [-b HOST_BINARY] [-- FLAGS OF THE NODES]
  -n  rollouts in a row, 20 without it
  -k  keys, 1000000 without it
  -w  connections that make load, 50 without it
  -b  the node's binary, target/release/host without it
USAGE
}

swaps=20 keys=1000000 workers=50 host=$PWD/target/release/host
while getopts n:k:w:b:h option; do
    case $option in
        n) swaps=$OPTARG ;;
        k) keys=$OPTARG ;;
        w) workers=$OPTARG ;;
        b) host=$OPTARG ;;
        h) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
done
shift $((OPTIND - 1))
. host/benches/lib.sh
need redis-benchmark curl awk
need_host

# The second version is the first with a custom section more: other bytes, the same logic, so whatever differs is the swap.
one=$work/one.wasm two=$work/two.wasm
cp target/guests/kv.wasm "$one"
{ cat "$one"; printf '\000\005\004demo'; } >"$two"

https=()
for n in 1 2 3; do
    join=()
    [ $n -gt 1 ] && join=(--join "${https[0]}" --auto-commit)
    start_node "$n" --vnode "$one" "${join[@]}" "$@"
    https+=("$node_http")
done
VNODE_ENDPOINT=${https[0]}
export VNODE_ENDPOINT
"$host" cluster wait >/dev/null || fail "the nodes do not become one cluster"
redis-benchmark -p "$node_port" -t set -n $((keys * 3)) -r "$keys" -d 100 -c 50 -P 64 -q >/dev/null 2>&1
machine
echo "three nodes, $(redis-cli -p "$node_port" dbsize) keys, $workers workers of the rkv workload; flags: ${*:-none}"

load=(bench run --workers "$workers" --keys "$keys")
"$host" "${load[@]}" --duration 10s --out "$work/rest" >"$work/rest.txt" 2>&1
echo "at rest:"
grep -A3 '^OPERATION' "$work/rest.txt"

"$host" "${load[@]}" --duration 10m --out "$work/swaps" >"$work/swaps.txt" 2>&1 &
loading=$!
started="$started $loading"
sleep 1
for ((swap = 1; swap <= swaps; swap++)); do
    version=$two
    [ $((swap % 2)) -eq 0 ] && version=$one
    begun=$(date +%s%N)
    "$host" --timeout 120s guest upgrade "$version" --soak 0s --wait >"$work/upgrade.txt" 2>&1 ||
        { cat "$work/upgrade.txt" >&2; kill -INT $loading; fail "rollout $swap did not succeed"; }
    echo $((($(date +%s%N) - begun) / 1000000)) >>"$work/took"
    # So that each version serves for a while.
    sleep 0.5
done
kill -INT $loading
wait $loading
echo "during $swaps rollouts, each of which took $(median <"$work/took") ms (median; $(sort -n "$work/took" | tail -1) at most):"
grep -A12 '^OPERATION' "$work/swaps.txt" | grep -v '^wrote'

for http in "${https[@]}"; do
    curl -s "$http/metrics"
done | awk '
    /^vnode_swap_pause_seconds_bucket/ { match($0, /le="[^"]*"/); le = substr($0, RSTART + 4, RLENGTH - 5); sum[le] += $2; if (!(le in at)) { at[le] = ++n; name[n] = le } }
    /^vnode_swap_pause_seconds_count/ { count += $2 }
    END {
        printf "pauses of vnodes: %d", count
        split("0.5 0.99 0.999", shares, " ")
        for (s = 1; s <= 3; s++)
            for (i = 1; i <= n; i++)
                if (sum[name[i]] >= shares[s] * count) { printf ", %g%% within %s s", shares[s] * 100, name[i]; break }
        print ""
    }'
