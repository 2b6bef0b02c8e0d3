#!/usr/bin/env bash
# Starts the lab's controllers (sushy-emulator) again, and waits until they answer. What they have said of media and boot sources
# they remember; a connection to a libvirtd that has died they never make good.
# usage, in the lab's network (in.sh): bmc.sh WORKDIR
set -euo pipefail
W=$(realpath "${1:?usage: bmc.sh WORKDIR}")
old=$(cat "$W/pids/sushy" 2>/dev/null || true)
if [ -n "$old" ] && kill "$old" 2>/dev/null; then
  for _ in $(seq 100); do kill -0 "$old" 2>/dev/null || break; sleep 0.1; done
fi
TMPDIR="$W/state" "$W/venv/bin/sushy-emulator" --config "$W/sushy.conf" < /dev/null >> "$W/log/sushy" 2>&1 &
pid=$!; echo "$pid" > "$W/pids/sushy"
port=$(sed -n 's/^SUSHY_EMULATOR_LISTEN_PORT = //p' "$W/sushy.conf")
for _ in $(seq 300); do
  curl -fsk -o /dev/null "https://127.0.0.1:$port/redfish/v1/" && exit 0
  kill -0 "$pid" 2>/dev/null || break
  sleep 0.2
done
echo "the controllers do not answer:" >&2; tail -n 20 "$W/log/sushy" >&2; exit 1
