#!/bin/sh
# Writes WORKDIR/lab.toml, a configuration of the server for the lab's machines, and the credentials of their controllers: what
# someone writes who sets a class of machines up by docs/providers.md. usage: by-hand.sh WORKDIR
set -eu
W=$1; here=$(cd "$(dirname "$0")" && pwd)
. "$W/lab.env"
umask 077
mkdir -p "$W/credentials"
printf '%s\n%s\n' "$LAB_USER" "$LAB_PASS" > "$W/credentials/lab"
# A copy: the server refuses programs that a group may write to, as some checkouts are.
cp "$here/node.sh" "$W/node.sh"; chmod 755 "$W/node.sh"
program() { printf '["%s/node.sh", "%s/lab.env", "%s"]' "$W" "$W" "$1"; }
action() { # NAME ACT [OBSERVE] [MORE]
  printf '[machine_classes.%s.exec.actions.%s]\nact = %s\n' "$class" "$1" "$(program "$2")"
  [ -z "${3:-}" ] || printf 'observe = %s\n' "$(program "$3")"
  [ -z "${4:-}" ] || printf '%s\n' "$4"
}
{
  printf '[credentials]\ndir = "%s/credentials"\n' "$W"
  printf '[networks]\nbmc = ["127.0.0.0/8"]\nimage = ["%s.0/24"]\n' "$LAB_NET"
  printf '[boot]\nlisten = "%s"\nfiles_dir = "%s/www"\n' "$LAB_BOOT" "$W"
  printf '[images."ubuntu-24.04"]\nurl = "%s"\nsha256 = "%s"\n' "$LAB_IMAGE" "$LAB_IMAGE_SHA256"
  for class in lab-media lab-network; do
    printf '\n[machine_classes.%s]\n' "$class"
    for capability in power netboot imaging wipe; do printf '%s = "redfish"\n' "$capability"; done
    for capability in cluster-join drain network notify probe; do printf '%s = "exec"\n' "$capability"; done
    printf '[machine_classes.%s.redfish]\nca_file = "%s"\nsettle = "2s"\ngraceful = "30s"\n' "$class" "$LAB_CACERT"
    [ "$class" = lab-network ] || printf 'image = "%s"\n' "$LAB_ISO"
    printf '[machine_classes.%s.installer]\ndisk = "smallest"\nssh_keys = ["%s"]\n' "$class" "$(cat "$LAB_SSH_KEY.pub")"
    printf '[machine_classes.%s.exec]\nprobe = %s\n' "$class" "$(program probe)"
    if [ "$class" = lab-media ]; then
      action mint-join mint-join; action join join joined
    else # the machine fetches it as the answer to a report
      action mint-join mint-config; action join join-reported joined 'material = "report"'
    fi
    action drain drain drained; action undrain undrain joined; action notify notify
    action apply-net-config net-config net-configured; action restore-net-config net-restore net-restored
    action verify joined; action verify-up up; action verify-connectivity connected
  done
} > "$W/lab.toml"
