#!/usr/bin/env bash
# Installs what the conformance run needs below target/, runs it against the server binary, and the examples with it.
# BMDEMO_SERVER and BMDEMO_RUST_EXAMPLE name other binaries than the debug builds.
set -euo pipefail
cd "$(dirname "$0")/../.."

for tool in python3 node npm curl; do
  if ! command -v "$tool" >/dev/null 2>&1; then
    printf '%s is not installed: the conformance run needs python3, curl, and node 20 or newer with npm\n' "$tool" >&2
    exit 1
  fi
done
built="${CARGO_TARGET_DIR:-target}/debug"
rust_example="${BMDEMO_RUST_EXAMPLE:-$built/examples/session}"
if [ ! -x "$rust_example" ]; then
  printf '%s is not there: build it (cargo build --example session)\n' "$rust_example" >&2
  exit 1
fi

venv=target/conformance/venv
typescript=target/conformance/typescript
mkdir -p "$typescript"
if [ ! -x "$venv/bin/python" ]; then
  python3 -m venv "$venv"
fi
"$venv/bin/pip" install --quiet --disable-pip-version-check -r tests/conformance/requirements.txt
if ! command -v buf >/dev/null 2>&1; then
  "$venv/bin/pip" install --quiet --disable-pip-version-check buf-bin
  export PATH="$PWD/$venv/bin:$PATH"
fi
# Copied, so that neither packages nor output come to lie in the sources.
for file in package.json package-lock.json .npmrc tsconfig.json session.ts; do
  cp "examples/typescript/$file" "$typescript/"
done
(cd "$typescript" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error && npm run --silent build)
connect=target/conformance/connect
mkdir -p "$connect"
for file in package.json package-lock.json .npmrc connect.mjs; do
  cp "tests/conformance/connect/$file" "$connect/"
done
(cd "$connect" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)

# Its servers end with it.
child=
trap '[ -z "$child" ] || kill "$child" 2>/dev/null || true' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
export GRPC_ENABLE_FORK_SUPPORT=0 PYTHONDONTWRITEBYTECODE=1
"$venv/bin/python" tests/conformance/conformance.py \
  --example "python=$venv/bin/python examples/python/session.py" \
  --example "typescript=node $typescript/dist/session.js --proto-dir=proto" \
  --example "rust=$rust_example" &
child=$!
wait "$child" && status=0 || status=$?
child=
exit "$status"
