#!/usr/bin/env bash
# The installer's ISO, the same for every machine: kernel, initramfs, and on the command line where it asks for settings.
# usage: mkiso.sh WORKDIR OUT.iso 'bmdemo.settings=http://HOST:PORT/boot/v1/settings [bmdemo.end=reboot]'
set -euo pipefail
W=$(realpath "${1:?}"); iso=${2:?}; args=${3:?}
t=$(mktemp -d "$W/iso.XXXXXX"); trap 'rm -rf "$t"' EXIT
mkdir -p "$t/boot/grub"
cp "$W/out/vmlinuz" "$W/out/installer.img" "$t/"
printf 'linux /vmlinuz console=ttyS0 quiet panic=10 %s\ninitrd /installer.img\nboot\n' "$args" > "$t/boot/grub/grub.cfg"
grub-mkrescue --compress=xz --locales= --fonts= --themes= --install-modules='linux normal iso9660 part_gpt part_msdos fat search search_fs_uuid search_fs_file boot' -o "$iso" "$t" >/dev/null 2>"$W/mkiso.log" || { cat "$W/mkiso.log" >&2; exit 1; }
