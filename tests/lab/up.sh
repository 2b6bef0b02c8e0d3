#!/usr/bin/env bash
# Starts the lab: N real UEFI machines behind Redfish BMCs that were written elsewhere, in a network namespace of its own.
# usage: up.sh WORKDIR          needs root, Debian or Ubuntu. Safe to repeat; down.sh WORKDIR stops it all.
# settings (environment): N=2 machines, MEM=512 MiB each, PORT=8443 (Redfish; PORT+1 image server, PORT+2 cluster,
#   PORT+3 where the server under test has its boot listener, PORT+100+i the IPMI BMC of machine i), NET=10.213.0 (first three bytes of the network inside NS), BR=bmlab0,
#   NS=bmlab (the namespace: nothing of the lab's traffic leaves it; run a client with `in.sh WORKDIR COMMAND…`),
#   LAB_USER=admin LAB_PASS=lab-secret, NETBOOT=pxe|http (what the firmware's
#   own network stack does: PXE with TFTP, or UEFI HTTP boot), IPMI=1 (virtual IPMI BMCs of the same machines too), ACCEL=auto|kvm|qemu (auto: KVM where UEFI really runs
#   under it, else qemu's own emulation, several times slower)
# writes WORKDIR/lab.env: everything that a test needs to know, and WORKDIR/lab.toml: a configuration of the server, to try it by hand.
set -euo pipefail
W=$(realpath -m "${1:?usage: up.sh WORKDIR}"); H=$(dirname "$(realpath "$0")")
N=${N:-2} MEM=${MEM:-512} PORT=${PORT:-8443} NET=${NET:-10.213.0} BR=${BR:-bmlab0}
LAB_USER=${LAB_USER:-admin} LAB_PASS=${LAB_PASS:-lab-secret} ACCEL=${ACCEL:-auto} NETBOOT=${NETBOOT:-pxe} IPMI=${IPMI:-0} NS=${NS:-bmlab}
t() { echo "$(date +%T) $*"; }
skip() { echo "LAB SKIPPED: $*" >&2; exit 77; }
[ "$(id -u)" = 0 ] || skip "needs root"
command -v apt-get >/dev/null || skip "needs apt"
[ ${#W} -lt 60 ] || skip "WORKDIR path too long for unix sockets"
mkdir -p "$W"/{pids,log,serial,disks,nvram,pool,www,lv/{etc,var,run,cache},state,tls}
[ ! -s "$W/pids/libvirtd" ] || ! kill -0 "$(cat "$W/pids/libvirtd")" 2>/dev/null || { echo "already up; run down.sh first" >&2; exit 1; }

t "packages"
pk="qemu-system-x86 libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients ovmf dnsmasq-base libvirt-dev
pkg-config gcc python3-dev python3-venv busybox-static dropbear-bin cpio xorriso grub-efi-amd64-bin grub-common mtools
dosfstools fdisk iproute2 procps xz-utils serf ipmitool openssl openssh-client curl apache2-utils"
miss=""; for p in $pk; do dpkg -s "$p" >/dev/null 2>&1 || miss="$miss $p"; done
if [ -n "$miss" ]; then
  printf '#!/bin/sh\nexit 101\n' > "$W/policy"; chmod +x "$W/policy" # no daemons started by packages
  policy=/usr/sbin/policy-rc.d
  if [ -e "$policy" ]; then policy=; else cp "$W/policy" "$policy"; trap 'rm -f /usr/sbin/policy-rc.d' EXIT; fi
  apt-get update -qq -o Acquire::Retries=3 || skip "no lists of packages"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 --no-install-recommends $miss \
    > "$W/log/apt" 2>&1 || { tail -n 20 "$W/log/apt" >&2; skip "packages could not be installed:$miss"; }
  trap - EXIT; [ -z "$policy" ] || rm -f "$policy"
fi
# The image has a kernel that is downloaded, and never installed: a machine with all packages may have no lists of them any more.
[ -n "$(apt-cache depends linux-image-cloud-amd64 2>/dev/null)" ] || apt-get update -qq -o Acquire::Retries=3
# libvirtd does not start without the account of its package for whole systems, even where another one is configured.
getent group libvirt-qemu >/dev/null || groupadd --system libvirt-qemu
getent passwd libvirt-qemu >/dev/null || useradd --system --no-create-home --gid libvirt-qemu --shell /usr/sbin/nologin libvirt-qemu
if [ ! -x "$W/venv/bin/sushy-emulator" ]; then
  python3 -m venv "$W/venv"
  "$W/venv/bin/pip" -q install sushy-tools==2.2.0 virtualbmc==3.3.0 libvirt-python==12.8.0 || skip "sushy-tools could not be installed"
fi
# A /dev/kvm that opens is not enough: some hosts' KVM stops on the first instructions of UEFI firmware.
kvm_works() {
  [ -w /dev/kvm ] || return 1
  cp /usr/share/OVMF/OVMF_VARS_4M.fd "$W/probe.fd"
  { sleep 2; echo info status; sleep 0.2; echo quit; } | timeout 10 qemu-system-x86_64 -nodefaults -accel kvm -cpu host -M q35 -m 128 \
    -display none -monitor stdio -drive if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd \
    -drive if=pflash,format=raw,file="$W/probe.fd" 2>&1 | grep -q 'VM status: running'
}
if [ "$ACCEL" = auto ]; then if kvm_works; then ACCEL=kvm; else ACCEL=qemu; fi; fi
t "images (machines run on: $ACCEL)"
[ -s "$W/out/disk.raw.gz" ] || "$H/build-image.sh" "$W" > "$W/log/build" 2>&1 || { tail -n 20 "$W/log/build" >&2; exit 1; }
cp "$W"/out/{vmlinuz,installer.img,disk.raw.gz,grubnet.efi} "$W/www/"

if [ "$(ip netns identify $$)" != "$NS" ]; then # the rest, and all that it starts, lives in the namespace
  ip netns list | grep -qw "$NS" || ip netns add "$NS" || skip "network namespaces cannot be made here"
  ip -n "$NS" link set lo up
  export N MEM PORT NET BR NS LAB_USER LAB_PASS ACCEL NETBOOT IPMI
  exec ip netns exec "$NS" bash "$H/$(basename "$0")" "$W"
fi
t "network"
ip link show "$BR" >/dev/null 2>&1 || ip link add "$BR" type bridge
ip addr replace "$NET.1/24" dev "$BR"; ip link set "$BR" up
pid() { echo "$2" > "$W/pids/$1"; }
: > "$W/log/images"; python3 -u -m http.server --bind "$NET.1" --directory "$W/www" $((PORT+1)) > "$W/log/images" 2>&1 & pid images $!
: > "$W/hosts"
for i in $(seq 1 "$N"); do printf '52:54:00:d0:00:%02x,%s.%d,node%d\n' "$i" "$NET" $((10+i)) "$i" >> "$W/hosts"; done
u=http://$NET.1:$((PORT+1)) boot=$NET.1:$((PORT+3))
settings=bmdemo.settings=http://$boot/boot/v1/settings
"$H/mkiso.sh" "$W" "$W/www/installer.iso" "$settings"
files="(http,$boot)/boot/v1/files" # of the server under test
printf 'linux %s/vmlinuz console=ttyS0 quiet panic=10 %s\ninitrd %s/installer.img\nboot\n' "$files" "$settings" "$files" > "$W/www/installer.cfg"
[ -s "$W/ssh" ] || ssh-keygen -q -t ed25519 -N '' -C lab -f "$W/ssh"
case $NETBOOT in # the firmware's IPv6 tries are off: each holds the boot for more than 90 s before the next way is tried
pxe) fw4=yes; dh="--enable-tftp --tftp-root=$W/www --dhcp-match=set:efi,option:client-arch,7 --dhcp-match=set:efi,option:client-arch,9 --dhcp-boot=tag:efi,grubnet.efi" ;;
http) fw4=no; dh="--dhcp-match=set:http,option:client-arch,16 --dhcp-boot=tag:http,http://$boot/boot/v1/files/grubnet.efi --dhcp-option-force=tag:http,60,HTTPClient" ;;
esac
dnsmasq -k -C /dev/null --user=root --port=0 --interface="$BR" --except-interface=lo --bind-interfaces --log-dhcp --log-facility=- \
  --dhcp-range="$NET.100,$NET.200,1h" --dhcp-hostsfile="$W/hosts" --dhcp-leasefile="$W/leases" --no-ping \
  $dh \
  > "$W/log/dnsmasq" 2>&1 & pid dnsmasq $!

t "cluster (serf: its member list is the fact that a join step verifies)"
[ -s "$W/joinkey" ] || openssl rand -base64 32 > "$W/joinkey"
serf agent -node=controller -bind="$NET.1:$((PORT+2))" -rpc-addr="127.0.0.1:$((PORT+2))" -encrypt="$(cat "$W/joinkey")" -tag role=controller > "$W/log/serf" 2>&1 & pid serf $!
t "libvirtd (own mount namespace: nothing of this machine's libvirt is touched)"
cat > "$W/lv/etc/qemu.conf" <<C
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
remember_owner = 0
C
cat > "$W/lv/libvirtd.conf" <<C
listen_tls = 0
listen_tcp = 0
unix_sock_dir = "$W/lv/run"
auth_unix_rw = "none"
auth_unix_ro = "none"
log_outputs = "3:file:$W/log/libvirtd"
C
"$H/libvirtd.sh" "$W"
URI="qemu+unix:///system?socket=$W/lv/run/libvirt-sock"
virsh -q -c "$URI" pool-info default >/dev/null 2>&1 || { # virtual media are uploaded into this pool
  virsh -q -c "$URI" pool-define-as default dir --target "$W/pool"; }
virsh -q -c "$URI" pool-start default 2>/dev/null || true

t "machines"
for i in $(seq 1 "$N"); do
  d="$W/disks/node$i.raw"; [ -e "$d" ] || truncate -s 256M "$d"
  uuid=$(printf '00000000-0000-4000-8000-5254d000%04x' "$i")
  cat > "$W/node$i.xml" <<X
<domain type='$ACCEL'><name>node$i</name><uuid>$uuid</uuid><memory unit='MiB'>$MEM</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type>
<loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>
<nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'>$W/nvram/node$i.fd</nvram></os>
<sysinfo type='fwcfg'><entry name='opt/org.tianocore/IPv4PXESupport'>$fw4</entry><entry name='opt/org.tianocore/IPv6PXESupport'>no</entry></sysinfo>
<features><acpi/></features>$([ "$ACCEL" = kvm ] && echo "<cpu mode='host-passthrough'/>")
<on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>destroy</on_crash>
<devices>
<disk type='file' device='disk'><driver name='qemu' type='raw' cache='unsafe'/><source file='$d'/><target dev='vda' bus='virtio'/><serial>LABDISK$i</serial><boot order='1'/></disk>
<controller type='sata' index='0'/>
<interface type='bridge'><mac address='$(printf '52:54:00:d0:00:%02x' "$i")'/><source bridge='$BR'/><model type='virtio'/><rom enabled='no'/></interface>
<serial type='file'><source path='$W/serial/node$i.log' append='on'/><target port='0'/></serial>
<console type='file'><source path='$W/serial/node$i.log' append='on'/><target type='serial' port='0'/></console>
<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng><memballoon model='none'/>
</devices></domain>
X
  virsh -q -c "$URI" define "$W/node$i.xml"
done

t "BMCs (sushy-emulator, TLS + basic auth)"
if [ ! -s "$W/tls/cert.pem" ]; then # an authority and the BMCs' certificate: strict clients take no self-signed one as both
  ec="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
  openssl req -x509 $ec -days 30 -subj /CN=lab-authority -keyout "$W/tls/ca.key" -out "$W/tls/ca.pem" 2>/dev/null
  openssl req $ec -subj /CN=lab-bmc -keyout "$W/tls/key.pem" -out "$W/tls/bmc.csr" 2>/dev/null
  printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n' > "$W/tls/ext"
  openssl x509 -req -in "$W/tls/bmc.csr" -CA "$W/tls/ca.pem" -CAkey "$W/tls/ca.key" -CAcreateserial -days 30 -extfile "$W/tls/ext" \
    -out "$W/tls/cert.pem" 2>/dev/null
fi
htpasswd -nbB "$LAB_USER" "$LAB_PASS" > "$W/tls/htpasswd"
cat > "$W/sushy.conf" <<C
SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'
SUSHY_EMULATOR_LISTEN_PORT = $PORT
SUSHY_EMULATOR_SSL_CERT = '$W/tls/cert.pem'
SUSHY_EMULATOR_SSL_KEY = '$W/tls/key.pem'
SUSHY_EMULATOR_AUTH_FILE = '$W/tls/htpasswd'
SUSHY_EMULATOR_LIBVIRT_URI = '$URI'
SUSHY_EMULATOR_STATE_DIR = '$W/state'
SUSHY_EMULATOR_FEATURE_SET = 'full'
SUSHY_EMULATOR_BOOT_LOADER_MAP = {'UEFI': {'x86_64': '/usr/share/OVMF/OVMF_CODE_4M.fd'}, 'Legacy': {'x86_64': None}}
SUSHY_EMULATOR_SECURE_BOOT_DISABLED_NVRAM = '/usr/share/OVMF/OVMF_VARS_4M.fd'
SUSHY_EMULATOR_SECURE_BOOT_ENABLED_NVRAM = '/usr/share/OVMF/OVMF_VARS_4M.ms.fd'
C
"$H/bmc.sh" "$W"
curl -fs --cacert "$W/tls/ca.pem" -u "$LAB_USER:$LAB_PASS" -o /dev/null "https://127.0.0.1:$PORT/redfish/v1/Systems"
if [ "$IPMI" = 1 ]; then # one virtualbmc per machine; ipmitool -I lanplus -C 3 (it knows no other cipher suite)
  mkdir -p "$W/vbmc/d"; export VIRTUALBMC_CONFIG="$W/vbmc/conf"
  printf '[default]\nconfig_dir=%s/vbmc/d\npid_file=%s/vbmc/pid\nserver_port=%d\n[log]\nlogfile=%s/log/vbmc\n' "$W" "$W" $((PORT+99)) "$W" > "$W/vbmc/conf"
  "$W/venv/bin/vbmcd" --foreground > "$W/log/vbmcd" 2>&1 & pid vbmcd $!
  for _ in $(seq 50); do "$W/venv/bin/vbmc" list >/dev/null 2>&1 && break; sleep 0.2; done
  for i in $(seq 1 "$N"); do
    "$W/venv/bin/vbmc" add "node$i" --address 127.0.0.1 --port $((PORT+100+i)) --username "$LAB_USER" --password "$LAB_PASS" --libvirt-uri "$URI" 2>/dev/null || true
    "$W/venv/bin/vbmc" start "node$i"
  done
fi
cat > "$W/lab.env" <<C
LAB=$W
LAB_REDFISH=https://127.0.0.1:$PORT
LAB_CACERT=$W/tls/ca.pem
LAB_USER=$LAB_USER
LAB_PASS=$LAB_PASS
LAB_LIBVIRT_URI='$URI'
LAB_HTTP=$u
LAB_ISO=$u/installer.iso
LAB_IMAGE=$u/disk.raw.gz
LAB_IMAGE_SHA256=$(cat "$W/out/disk.raw.gz.sha256")
LAB_BOOT=$boot
LAB_SSH_KEY=$W/ssh
LAB_NET=$NET
LAB_ACCEL=$ACCEL
LAB_NETBOOT=$NETBOOT
LAB_N=$N
LAB_BR=$BR
LAB_NS=$NS
LAB_IPMI=$IPMI
LAB_IPMI_PORT=$((PORT+100))
LAB_JOIN=$NET.1:$((PORT+2))
LAB_JOINKEY=$(cat "$W/joinkey")
LAB_SERF_RPC=127.0.0.1:$((PORT+2))   # serf members -rpc-addr=\$LAB_SERF_RPC -format json
LAB_SYSTEMS='$(for i in $(seq 1 "$N"); do printf '00000000-0000-4000-8000-5254d000%04x ' "$i"; done)'
C
"$H/by-hand.sh" "$W"
t "up: $W/lab.env"
