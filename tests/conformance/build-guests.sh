#!/usr/bin/env bash
# Builds the guests that only tests use: build-guests.sh [rust|python|javascript]...   (all of them without a word)
#
# They go to target/guests/{clerk,clerk-*,hostile,liar,traveller,polyglot-*}.wasm. A guest is built again only when its sources, the contract
# or the version of its compiler change. What a language needs is installed under target/. Exit code 75: a registry
# cannot be reached.
set -euo pipefail

COMPONENTIZE_PY=0.25.1

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
out=$root/target/guests
mkdir -p "$out"
cd "$root"

# Runs an installer; its words are only shown when it fails.
install() {
  local log
  log=$(mktemp)
  if "$@" >"$log" 2>&1; then rm "$log"; return; fi
  cat "$log" >&2
  local unreachable='Failed to establish|NewConnectionError|NameResolution|ConnectTimeout|ProxyError|ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT|ECONNRESET|network is unreachable'
  if grep -qiE "$unreachable" "$log"; then exit 75; fi
  exit 1
}

# fresh NAME VERSION FILE...: whether NAME.wasm was made of just these.
fresh() {
  local name=$1 version=$2
  shift 2
  sum=$( (echo "$version"; find "$@" -type f -not -path '*/target/*' -not -path '*/__pycache__/*' -print0 | sort -z | xargs -0 sha256sum) | sha256sum)
  [ -f "$out/$name.wasm" ] && [ "$(cat "$out/.$name.sum" 2>/dev/null)" = "$sum" ]
}

# keep NAME FILE: puts a component in its place, whole or not at all.
keep() {
  cp "$2" "$out/.$1.tmp" && mv "$out/.$1.tmp" "$out/$1.wasm" && echo "$sum" >"$out/.$1.sum"
  echo "== built target/guests/$1.wasm"
}

rust() {
  # Cargo knows best what is fresh.
  CARGO_TARGET_DIR=$root/target/test-guests cargo build --quiet --locked --release --target wasm32-wasip2 \
    --manifest-path tests/guests/Cargo.toml
  for name in clerk hostile liar traveller; do
    made "$name" "$name"
  done
  made polyglot polyglot-rust
  # The makes of one guest that a rollout meets.
  for make in two trap-key trap-all trap-init loop refuse hoard slow slower wrong stray schema less \
    migrates migrates-one-way migrates-trap migrates-loop migrates-slow; do
    CARGO_TARGET_DIR=$root/target/test-guests cargo build --quiet --locked --release --target wasm32-wasip2 \
      --manifest-path tests/guests/Cargo.toml -p clerk --features "$make"
    made clerk "clerk-$make"
  done
}

# made NAME AS: puts what cargo has made in its place, if it is not there.
made() {
  local made=target/test-guests/wasm32-wasip2/release/$1.wasm
  cmp -s "$made" "$out/$2.wasm" || { sum=cargo; keep "$2" "$made"; }
}

python() {
  local venv=target/python-venv sources=tests/conformance/guests/python
  if fresh polyglot-python "$COMPONENTIZE_PY" wit "$sources"; then return; fi
  echo "== polyglot-python with componentize-py $COMPONENTIZE_PY"
  [ -x "$venv/bin/pip" ] || python3 -m venv "$venv"
  install "$venv/bin/pip" install --disable-pip-version-check "componentize-py==$COMPONENTIZE_PY"
  "$venv/bin/componentize-py" --quiet -d wit -w guest componentize --stub-wasi -p "$sources" app \
    -o "$out/.polyglot-python.made"
  keep polyglot-python "$out/.polyglot-python.made" && rm "$out/.polyglot-python.made"
}

javascript() {
  local packages=target/js sources=tests/conformance/guests/javascript
  if fresh polyglot-js npm wit "$sources"; then return; fi
  echo "== polyglot-js with componentize-js"
  mkdir -p "$packages"
  cp "$sources/package.json" "$packages/"
  install npm install --prefix "$packages" --no-audit --no-fund --no-package-lock
  cp "$sources/build.mjs" "$packages/build.mjs"
  node "$packages/build.mjs" "$root/$sources/app.js" "$root/wit" "$out/.polyglot-js.made"
  keep polyglot-js "$out/.polyglot-js.made" && rm "$out/.polyglot-js.made"
}

build() (
  # One at a time: several tests may ask for the same guest.
  exec 9>"$out/.$1.lock"
  if command -v flock >/dev/null; then flock 9; fi
  "$1"
)

if [ $# -gt 0 ]; then
  for language in "$@"; do build "$language"; done
  exit
fi
for language in rust python javascript; do
  # `set -e` does not reach into a condition, so the exit code is looked at by hand.
  code=0
  "$0" "$language" || code=$?
  if [ "$code" = 75 ] && [ "$language" != rust ]; then
    echo "*** SKIPPED: the registry for $language cannot be reached; its tests will check nothing ***" >&2
  elif [ "$code" != 0 ]; then
    exit "$code"
  fi
done
