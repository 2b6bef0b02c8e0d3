#!/bin/sh
# The programs of the lab's class of machines (driver exec): what its cluster is asked, and its machines over SSH.
# usage: node.sh LAB.env WHAT      the call comes as JSON on standard input: docs/providers.md
set -eu
. "$1"; what=$2; call=$(cat)
field() { printf '%s' "$call" | sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p" | head -1; }
id=$(field id); host=$(field ssh_endpoint); host=${host%:*}
on() { ssh -i "$LAB_SSH_KEY" -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR \
  -o ConnectTimeout=5 -o ServerAliveInterval=5 "root@$host" "$@"; }
member() { serf members -rpc-addr="$LAB_SERF_RPC" 2>/dev/null | awk -v id="$id" '$1 == id { print $3 }'; }
answer() { printf 'bmdemo: %s\n' "$1"; }
no() { answer "{\"observed\": \"$1\"}"; exit 10; }
within() { n=$1; shift; until "$@"; do n=$((n-1)); [ "$n" -gt 0 ] || return 1; sleep 0.5; done; }
is() { [ "$(member)" = "$1" ]; }
config() { # of the cluster's agent, with the key of the cluster
  printf '{"node_name":"%s","bind":"%s:7946","start_join":["%s"],"encrypt_key":"%s","tags":{"role":"worker"}}' "$id" "$host" "$LAB_JOIN" "$1"; }

# A test can hold what acts where it begins: it waits until it is ended.
if [ "$BMDEMO_CALL" = act ] && [ -e "$LAB/hold.$BMDEMO_ACTION" ]; then : > "$LAB/held.$BMDEMO_ACTION"; sleep 1000; exit 75; fi

case $what in
mint-join) # the server keeps the material in memory, and hands it to join
  answer "{\"material\": \"$LAB_JOINKEY\", \"evidence\": \"key of the cluster\"}" ;;
mint-config) answer "{\"material\": \"$(config "$LAB_JOINKEY" | sed 's/"/\\"/g')\", \"evidence\": \"configuration with the key of the cluster\"}" ;;
join-reported) # the machine fetches the material itself, as the answer to a report
  within 120 is alive || { echo "not a member after 60 s: $(member)" >&2; exit 75; }
  answer "{\"evidence\": \"$id is alive in the member list\"}" ;;
join) # the material goes over standard input of SSH, never into an argument
  key=$(field material); [ -n "$key" ] || { echo "no material was handed over" >&2; exit 65; }
  config "$key" | on 'umask 077; cat > /run/serf.json; mount -t vfat /dev/vda1 /mnt && { cp /run/serf.json /mnt/; umount /mnt; sync; }
    pidof serf >/dev/null || { serf agent -config-file=/run/serf.json > /run/serf.log 2>&1 < /dev/null & }'
  within 60 is alive || { echo "not a member after 30 s: $(member)" >&2; exit 75; }
  answer "{\"evidence\": \"$id is alive in the member list\"}" ;;
joined) is alive || no "the member list says ${what}: $(member)"; answer "{\"evidence\": \"$id is alive in the member list\"}" ;;
drain)
  on 'serf leave' >/dev/null 2>&1 || true
  within 40 is left || { echo "still $(member) after 20 s" >&2; exit 75; }
  answer "{\"evidence\": \"$id has left the cluster\"}" ;;
drained) case $(member) in alive) no "still alive in the member list" ;; esac; answer "{\"evidence\": \"member list: $(member)\"}" ;;
undrain)
  on 'pidof serf >/dev/null || { serf agent -config-file=/run/serf.json > /run/serf.log 2>&1 < /dev/null & }'
  within 60 is alive || { echo "not a member after 30 s: $(member)" >&2; exit 75; } ;;
net-config) on 'ifconfig eth0 mtu 1400'; answer '{"evidence": "mtu 1400"}' ;;
net-restore) on 'ifconfig eth0 mtu 1500'; answer '{"evidence": "mtu 1500"}' ;;
net-configured) [ "$(on 'cat /sys/class/net/eth0/mtu')" = 1400 ] || no "the mtu is another"; answer '{"evidence": "mtu 1400"}' ;;
net-restored) [ "$(on 'cat /sys/class/net/eth0/mtu')" = 1500 ] || no "the mtu is another" ;;
connected) on "ping -c 1 -w 5 $LAB_NET.1" >/dev/null || no "the gateway does not answer" ;;
up) on true 2>/dev/null || no "no answer over SSH" ;;
notify) printf '%s %s\n' "$id" "$BMDEMO_OPERATION_ID" >> "$LAB/notified"; answer '{"evidence": "written down"}' ;;
probe) on 'uptime' 2>/dev/null || no "no answer over SSH" ;;
*) echo "unknown: $what" >&2; exit 64 ;;
esac
