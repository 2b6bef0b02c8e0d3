#!/usr/bin/env bash
# Builds what the lab machines boot, in WORKDIR/out, from Debian packages only:
#   vmlinuz, installer.img   the installer (kernel + busybox initramfs), for the ISO and for netboot
#   disk.raw.gz (+ .sha256)  the system that the installer writes to /dev/vda: GPT, one ESP, grub, kernel, initramfs
#   grubnet.efi              a grub that a UEFI machine loads by PXE/TFTP or by UEFI HTTP boot
# mkiso.sh makes one installer ISO per machine from them.
# usage: build-image.sh WORKDIR       (no root needed, once the packages are there)
set -euo pipefail
W=$(realpath -m "${1:?usage: build-image.sh WORKDIR}")
O=$W/out; B=$W/build
mkdir -p "$O" "$B"
cd "$B"

# 1. kernel: downloaded and unpacked, never installed
if [ ! -d k ]; then
  pkg=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-/ {print $2; exit}')
  apt-get download -o Acquire::Retries=3 "$pkg" 2>/dev/null
  dpkg -x "$pkg"_*.deb k
  rm -f "$pkg"_*.deb
fi
KV=$(basename "$(echo k/lib/modules/*)")
cp "k/boot/vmlinuz-$KV" "$O/vmlinuz"

# 2. initramfs: busybox, the few modules, dropbear, one /init per role
mods="drivers/virtio/virtio drivers/virtio/virtio_ring drivers/virtio/virtio_pci_modern_dev
drivers/virtio/virtio_pci_legacy_dev drivers/virtio/virtio_pci drivers/block/virtio_blk net/core/failover
drivers/net/net_failover drivers/net/virtio_net drivers/char/hw_random/virtio-rng fs/nls/nls_cp437 fs/nls/nls_ascii
fs/fat/fat fs/fat/vfat fs/efivarfs/efivarfs drivers/input/evdev drivers/acpi/button"

mkinit() { # name, init body on stdin
  local d=$B/$1; rm -rf "$d"; mkdir -p "$d"/{bin,dev,proc,sys,tmp,mnt,etc,run,r,lib/modules,usr/share/udhcpc}
  cp /bin/busybox "$d/bin/busybox"
  local a; for a in $(/bin/busybox --list); do [ "$a" = busybox ] || ln -sf busybox "$d/bin/$a"; done
  : > "$d/lib/modules/order"
  local m n; for m in $mods; do n=$(basename "$m").ko
    if [ -f "k/lib/modules/$KV/kernel/$m.ko" ]; then
      cp "k/lib/modules/$KV/kernel/$m.ko" "$d/lib/modules/$n"; echo "$n" >> "$d/lib/modules/order"; fi; done
  if command -v dropbear >/dev/null; then # ssh server for exec steps; its libraries go along
    cp "$(command -v dropbear)" "$d/bin/dropbear"
    ldd "$(command -v dropbear)" | grep -o '/[^ ]*' | while read -r l; do mkdir -p "$d$(dirname "$l")"; cp -L "$l" "$d$l"; done
    echo 'root:x:0:0:root:/r:/bin/sh' > "$d/etc/passwd"; echo 'root:x:0:' > "$d/etc/group"
    echo /bin/sh > "$d/etc/shells"
  fi
  if [ "$1" = system ] && command -v serf >/dev/null; then cp "$(command -v serf)" "$d/bin/serf"; fi # the cluster it joins
  cat > "$d/usr/share/udhcpc/default.script" <<'S'
#!/bin/sh
case $1 in bound|renew)
  ifconfig "$interface" "$ip" netmask "${subnet:-255.255.255.0}" up
  [ -n "$router" ] && route add default gw ${router%% *} 2>/dev/null
  echo "$ip" > /run/ip ;; esac
S
  chmod +x "$d/usr/share/udhcpc/default.script"
  { cat <<'S'
#!/bin/sh
export PATH=/bin HOME=/r
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev
mkdir -p /dev/pts; mount -t devpts t /dev/pts
for pass in 1 2 3; do while read -r m; do insmod /lib/modules/$m 2>/dev/null; done < /lib/modules/order; done
up() { cut -d. -f1 /proc/uptime; }
say() { echo "LAB[$(cut -d' ' -f1 /proc/uptime)] $*"; }
arg() { for w in $(cat /proc/cmdline); do case $w in bmdemo.$1=*) echo "${w#bmdemo.$1=}";; esac; done | tail -1; }
net() {
  ifconfig lo up; ifconfig eth0 up
  i=0; until udhcpc -i eth0 -s /usr/share/udhcpc/default.script -n -q -t 5 -T 1 >/dev/null 2>&1; do i=$((i+1)); [ $i -gt 10 ] && return 1; sleep 1; done
  IP=$(cat /run/ip); MAC=$(cat /sys/class/net/eth0/address); say "net ip=$IP mac=$MAC"
}
setting() { sed -n "s|^$1=||p" /run/settings | head -1; }
ids() { echo ",\"boot_id\":\"$(cat /proc/sys/kernel/random/boot_id)\""; }
blocks() { cat /sys/block/${1#/dev/}/size; }
find_disk() { # a path, serial:NUMBER or smallest
  case $1 in
  /dev/*) [ -b "$1" ] && echo "$1" ;;
  serial:*) for b in /sys/block/vd* /sys/block/sd*; do [ "$(cat $b/serial 2>/dev/null)" = "${1#serial:}" ] && { echo /dev/${b##*/}; return 0; }; done; return 1 ;;
  smallest) for b in /sys/block/vd* /sys/block/sd*; do [ -e $b/size ] && [ "$(cat $b/size)" -gt 0 ] && [ "$(cat $b/ro)" = 0 ] && echo "$(cat $b/size) /dev/${b##*/}"; done | sort -n | head -1 | cut -d' ' -f2 | grep . ;;
  *) return 1 ;;
  esac; }
home() { # stage body: said until it is heard
  n=0; until wget -q -O /dev/null --header "Authorization: Bearer $(setting token)" --header 'Content-Type: application/json' \
    --post-data "$2" "$(setting report_url)" 2>/run/wget; do
    n=$((n+1)); case $(cat /run/wget) in *" 403 "*) say "report $1 refused"; return 1;; esac
    [ $n -gt 60 ] && { say "report $1 FAILED"; return 1; }; sleep 1; done
  say "reported: $1"
}
die() { say "FAILED: $*"; home failed "{\"stage\":\"failed\",\"message\":\"$*\"$(ids)}"; sleep 1; poweroff -f; sleep 60; }
sshd() { [ -x /bin/dropbear ] || return 0; grep -q '^ssh_key=' /run/settings || return 0
  mkdir -p /r/.ssh /etc/dropbear; chmod 700 /r /r/.ssh
  sed -n 's/^ssh_key=//p' /run/settings > /r/.ssh/authorized_keys; chmod 600 /r/.ssh/authorized_keys
  dropbear -R -s -E -p 22 2>/dev/console; say "ssh up"; }
S
    cat; } > "$d/init"
  chmod +x "$d/init"
  (cd "$d" && find . | LC_ALL=C sort | cpio -o -H newc --quiet --owner 0:0 | gzip -6n) > "$O/$1.img"
}

mkinit installer <<'S'
# The generic installer: what to do on this machine it asks the server, by the machine's own MAC address.
say "installer up"
net || { say "FAILED: no address"; sleep 2; poweroff -f; }
n=0; until wget -q -O /run/settings "$(arg settings)?mac=$MAC" 2>/run/wget; do
  n=$((n+1)); case $(cat /run/wget) in *" 410 "*) say "settings were handed out before"; poweroff -f;; esac
  [ $n -gt 60 ] && { say "FAILED: no settings: $(cat /run/wget)"; poweroff -f; }; sleep 1; done
say "settings fetched: task $(setting task)"
sshd
disk=$(find_disk "$(setting disk)") || die "no disk $(setting disk)"
home installing "{\"stage\":\"installing\"$(ids)}"
t0=$(up)
case $(setting task) in
install)
  n=0; until wget -q -O /tmp/i.gz "$(setting image_url)"; do n=$((n+1)); [ $n -gt 5 ] && die "image download"; sleep 1; done
  got=$(sha256sum < /tmp/i.gz | cut -d' ' -f1)
  [ "$got" = "$(setting image_sha256)" ] || die "image checksum $got"
  # The disk's last sector counts what was ever written to it: proof that is the disk's own word.
  count=$(dd if=$disk bs=512 skip=$(( $(blocks $disk) - 1 )) count=1 2>/dev/null | tr -d '\0' | sed -n 's/^writes=//p')
  gunzip -c /tmp/i.gz | dd of=$disk bs=1M conv=fsync 2>/dev/null || die "write"
  printf 'writes=%d' $(( ${count:-0} + 1 )) | dd of=$disk bs=512 seek=$(( $(blocks $disk) - 1 )) conv=sync,fsync 2>/dev/null
  blockdev --rereadpt $disk; sleep 1
  mount -t vfat ${disk}1 /mnt || die "mount"
  { echo "report_url=$(setting report_url)"; echo "token=$(setting token)"; echo "machine=$(setting machine)"
    grep -E '^(ssh_key|hostname|user_data)=' /run/settings; } > /mnt/machine.cfg
  umount /mnt; sync
  say "image written in $(( $(up) - t0 )) s, write $(( ${count:-0} + 1 )) of this disk"
  home written "{\"stage\":\"written\",\"image_sha256\":\"$got\",\"message\":\"$disk in $(( $(up) - t0 )) s\"$(ids)}" ;;
erase)
  dd if=/dev/zero of=$disk bs=1M conv=fsync 2>/dev/null # ends with the disk
  left=$(tr -d '\0' < $disk | head -c 1 | wc -c)
  [ "$left" = 0 ] || die "$disk is not all zeros"
  say "erased $disk"
  home written "{\"stage\":\"written\",\"message\":\"$disk serial $(cat /sys/block/${disk#/dev/}/serial 2>/dev/null), $(blocks $disk) sectors read back as zeros\"$(ids)}" ;;
*) die "unknown task $(setting task)" ;;
esac
case $(arg end) in reboot) reboot -f;; *) poweroff -f;; esac
sleep 60
S

mkinit system <<'S'
say "installed system up"
i=0; until [ -b /dev/vda1 ] || [ $i -gt 20 ]; do sleep 0.2; i=$((i+1)); done
mount -t vfat -o ro /dev/vda1 /mnt && cp /mnt/machine.cfg /run/settings && { cp /mnt/serf.json /run/ 2>/dev/null; umount /mnt; }
net || say "FAILED: no address"
hostname "$(setting hostname)"
sshd
[ -s /run/serf.json ] && { serf agent -config-file=/run/serf.json > /run/serf.log 2>&1 & say "rejoins its cluster"; }
home up "{\"stage\":\"up\"$(ids)}"
# Not in a cluster yet: what it needs for that may come over SSH, or is the answer to a report that asks for it.
[ -s /run/serf.json ] || (umask 077; until [ -s /run/serf.json ]; do sleep 2
  wget -q -O /run/material --header "Authorization: Bearer $(setting token)" --header 'Content-Type: application/json' \
    --post-data "{\"stage\":\"up\",\"wants_material\":true$(ids)}" "$(setting report_url)" 2>/dev/null
  [ -s /run/material ] || continue
  say "material fetched"; mv /run/material /run/serf.json
  mount -t vfat /dev/vda1 /mnt && { cp /run/serf.json /mnt/; umount /mnt; sync; }
  serf agent -config-file=/run/serf.json > /run/serf.log 2>&1 < /dev/null &
done) &
# The BMC's graceful shutdown is the ACPI power button: leave the cluster, then go down.
button() { for e in /dev/input/event*; do [ -e "$e" ] || continue
  (while :; do # struct input_event is 24 bytes: type 1 (EV_KEY), code 116 (KEY_POWER), value 1
    x=$(head -c 24 "$e" | hexdump -v -e '/1 "%02x"'); [ -n "$x" ] || exit
    case $x in ????????????????????????????????0100740001000000) say "power button"; [ -e /run/ignorebutton ] || { serf leave >/dev/null 2>&1; sync; poweroff -f; };; esac
  done) & done; }
button
while :; do sleep 60; done
S

# 3. grub for the disk, for netboot
cat > grub-disk.cfg <<'C'
search --no-floppy --set=root --file /lab-vmlinuz
linux /lab-vmlinuz console=ttyS0 quiet panic=10
initrd /lab-system.img
boot
C
grub-mkstandalone -O x86_64-efi -o grub-disk.efi --modules="part_gpt fat linux normal search search_fs_file" \
  --install-modules="part_gpt fat linux normal search search_fs_file" --locales="" --fonts="" --themes="" boot/grub/grub.cfg=grub-disk.cfg
cat > grub-net.cfg <<'C'
# the same for every machine: the installer asks for its settings itself
echo "LAB grub over the network: $cmdpath mac $net_default_mac"
# A download that breaks off is begun again.
for try in 1 2 3 4 5; do source $cmdpath/installer.cfg; echo "LAB grub begins again"; sleep 3; done
reboot
C
grub-mkstandalone -O x86_64-efi -o "$O/grubnet.efi" --modules="efinet net tftp http linux normal echo configfile sleep reboot" \
  --install-modules="efinet net tftp http linux normal echo configfile boot sleep reboot" --locales="" --fonts="" --themes="" boot/grub/grub.cfg=grub-net.cfg

# 4. the disk image: GPT + ESP, without loop devices and without root
S=64; rm -f disk.raw esp.img
truncate -s ${S}M esp.img; mkfs.vfat -F 32 -n LAB esp.img >/dev/null
mmd -i esp.img ::/EFI ::/EFI/BOOT
mcopy -i esp.img grub-disk.efi ::/EFI/BOOT/BOOTX64.EFI
mcopy -i esp.img "$O/vmlinuz" ::/lab-vmlinuz
mcopy -i esp.img "$O/system.img" ::/lab-system.img
truncate -s $((S+2))M disk.raw
printf 'label: gpt\nstart=2048, size=%d, type=U, name=ESP\n' $((S*2048)) | sfdisk -q disk.raw
dd if=esp.img of=disk.raw bs=1M seek=1 conv=notrunc,sparse status=none
gzip -1n < disk.raw > "$O/disk.raw.gz"
sha256sum < "$O/disk.raw.gz" | cut -d' ' -f1 > "$O/disk.raw.gz.sha256"
ls -l "$O"
