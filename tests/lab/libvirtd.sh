#!/usr/bin/env bash
# Starts the lab's libvirtd, and waits until it answers. It has a mount namespace of its own: nothing of this machine's libvirt is
# touched. Machines that an earlier one has left running are its own again.
# usage, in the lab's network (in.sh): libvirtd.sh WORKDIR
set -euo pipefail
W=$(realpath "${1:?usage: libvirtd.sh WORKDIR}")
unshare -m --propagation private bash -c '
  W=$1; mkdir -p /etc/libvirt /var/lib/libvirt /run/libvirt /var/cache/libvirt
  mount --bind $W/lv/etc /etc/libvirt; mount --bind $W/lv/var /var/lib/libvirt
  mount --bind $W/lv/run /run/libvirt; mount --bind $W/lv/cache /var/cache/libvirt
  exec libvirtd -f $W/lv/libvirtd.conf -p $W/lv/libvirtd.pid' _ "$W" < /dev/null > "$W/log/libvirtd.out" 2>&1 &
pid=$!; echo "$pid" > "$W/pids/libvirtd"
for _ in $(seq 300); do
  virsh -q -c "qemu+unix:///system?socket=$W/lv/run/libvirt-sock" list >/dev/null 2>&1 && exit 0
  kill -0 "$pid" 2>/dev/null || break
  sleep 0.2
done
echo "libvirtd does not answer:" >&2; tail -n 20 "$W/log/libvirtd.out" "$W/log/libvirtd" >&2; exit 1
