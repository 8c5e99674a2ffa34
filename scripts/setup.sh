# shellcheck shell=bash
# Sourced by scripts/demo and scripts/test: system packages and the virtual environment.
# Says what it does on standard error, because standard output may be the program's JSON.

set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PATH="$PATH:/usr/sbin:/sbin" # mke2fs and libvirtd, on a user's PATH in Debian
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
STAMP="$ROOT/.venv/swarm-tui.stamp"
PIP_LOG="$ROOT/.venv/pip.log"

say() { printf '==> %s\n' "$*" >&2; }
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 3
}

# What must be there, and the Debian package that brings it: a program or a file, with | between
# places where it may be.
RUN_NEEDS="
qemu-system-x86_64 qemu-system-x86
qemu-img qemu-utils
libvirtd libvirt-daemon
/usr/lib/*/libvirt/connection-driver/libvirt_driver_qemu.so|/usr/lib64/libvirt/connection-driver/libvirt_driver_qemu.so libvirt-daemon-driver-qemu
virsh libvirt-clients
mke2fs e2fsprogs
fakeroot fakeroot
lz4 lz4
zstd zstd
ssh-keygen openssh-client
git git
tmux tmux
pgrep procps
/etc/ssl/certs/ca-certificates.crt ca-certificates
"

# What a swarm under Cloud Hypervisor takes besides; the tests have one.
CH_NEEDS="
ip iproute2
iptables iptables
"

# What the tests of hosts far away take. Under systemd its package would open a port of this machine.
FAR_NEEDS="
/usr/sbin/sshd openssh-server
"

# What the tests of a team's store take: the programs, not the cluster that its package makes.
STORE_NEEDS="
/usr/lib/postgresql/*/bin/postgres postgresql
"

# What images from OCI take besides (`swarm-tui image build`); the tests make such images.
IMAGE_NEEDS="
skopeo skopeo
patchelf patchelf
umoci umoci
mmdebstrap mmdebstrap
"

have() { # NEED
  local place places
  IFS='|' read -ra places <<<"$1"
  for place in "${places[@]}"; do
    case $place in
    /*) compgen -G "$place" >/dev/null && return ;;
    *) command -v "$place" >/dev/null && return ;;
    esac
  done
  return 1
}

missing_from() { # LIST: the packages of those needs that are not met
  local need package
  while read -r need package; do
    [ -z "$need" ] || have "$need" || echo "$package"
  done <<<"$1"
}

lacks_qemu_user() { # as root, Debian's driver runs QEMU as that user and does not load without it
  [ "$(id -u)" = 0 ] && ! getent passwd libvirt-qemu >/dev/null &&
    grep -qs libvirt-qemu /usr/lib/*/libvirt/connection-driver/libvirt_driver_qemu.so
}

lacks_lists() { # the guest image is made of Debian packages, which apt finds by its lists
  command -v apt-get >/dev/null && ! compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null
}

install_packages() { # PACKAGE…; none: only fetch apt's lists
  local sudo=() line="apt-get update"
  [ $# = 0 ] || line+=" && apt-get install --no-install-recommends $*"
  command -v apt-get >/dev/null ||
    fail "missing, by Debian's package names: $*. Install them, then run this again."
  if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
      say "something is missing, and installing it needs root. As root run:"
      printf '\n    %s\n\n' "$line" >&2
      exit 3
    fi
    sudo=(sudo -n)
  fi
  say "$line"
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive bash -c \
    'apt-get update -q && { [ $# = 0 ] || apt-get install -qy --no-install-recommends "$@"; }' \
    _ "$@" </dev/null >&2 || fail "apt-get failed, see above"
}

find_python() { # the first Python that is new enough; a pyenv shim may exist and yet not run
  local name
  for name in python3 python3.13 python3.12 python3.11 python3.14; do
    "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
    command -v "$name"
    return
  done
}

build_needs() { # PYTHON: packages without which the virtual environment cannot be made
  "$1" -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
  "$1" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' ||
    echo python3-dev
  have cc || printf '%s\n' gcc libc6-dev
  have pkg-config || echo pkg-config
  pkg-config --exists libvirt 2>/dev/null || echo libvirt-dev
}

stamp() { # GROUP: what the environment was made of; empty when it does not run
  local version
  version=$("$ROOT/.venv/bin/python" -c 'import sys; print(sys.version)' 2>/dev/null) || return 0
  echo "$1 $ROOT $version $(sha256sum <"$ROOT/pyproject.toml")"
}

is_made() { # GROUP; the environment for the tests does for the demo too
  local wanted
  for wanted in "$(stamp "$1")" "$(stamp test)"; do
    [ -n "$wanted" ] && grep -qxF -- "$wanted" "$STAMP" 2>/dev/null && return
  done
  return 1
}

make_venv() { # GROUP PYTHON
  local wanted=()
  if ! "$ROOT/.venv/bin/python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    say "making .venv with $2 ($("$2" --version))"
    "$2" -m venv --clear "$ROOT/.venv"
  fi
  if [ "$1" = test ]; then
    # pip before 25.1 knows no dependency groups.
    mapfile -t wanted < <("$ROOT/.venv/bin/python" -c 'import sys, tomllib
print(*tomllib.load(sys.stdin.buffer)["dependency-groups"]["dev"], sep="\n")' <"$ROOT/pyproject.toml")
  fi
  say "pip install -e . ${wanted[*]}"
  rm -f "$STAMP"
  "$ROOT/.venv/bin/python" -m pip install -q --progress-bar off -e "$ROOT" "${wanted[@]}" 2>&1 |
    tee "$PIP_LOG" >&2 || {
    if grep -q 'Failed .*libvirt-python' "$PIP_LOG"; then
      say "libvirt-python is built against the system's libvirt: that needs gcc, pkg-config,"
      say "libvirt-dev and the headers of $2 (python3-dev)"
    fi
    fail "pip failed, see above"
  }
  stamp "$1" >"$STAMP"
}

set_up() { # GROUP: demo or test; returns when everything is there
  local packages made=yes python begun=$SECONDS
  mapfile -t packages < <(
    missing_from "$RUN_NEEDS"
    [ "$1" = demo ] || missing_from "$CH_NEEDS"
    [ "$1" = demo ] || missing_from "$STORE_NEEDS"
    [ "$1" = demo ] || missing_from "$IMAGE_NEEDS"
    [ "$1" = demo ] || [ -d /run/systemd/system ] || missing_from "$FAR_NEEDS"
  )
  is_made "$1" || made=no
  if [ $made = no ]; then
    python=$(find_python)
    [ -n "$python" ] || packages+=(python3)
    mapfile -t -O ${#packages[@]} packages < <(build_needs "${python:-false}")
  fi
  if [ ${#packages[@]} != 0 ] || lacks_lists; then
    install_packages "${packages[@]}"
  fi
  if lacks_qemu_user; then # Debian 12 makes it with another package than the driver's
    packages=(libvirt-daemon-system)
    [ -d /run/systemd/system ] || packages+=(libvirt-daemon-system-sysv)
    install_packages "${packages[@]}"
  fi
  if [ $made = no ]; then
    [ -n "$python" ] || python=$(find_python)
    [ -n "$python" ] || fail "no Python of 3.11 or newer: this system's is too old"
    exec 9<"$ROOT/pyproject.toml" # two runs at once: the second waits, then finds it made
    flock 9
    is_made "$1" || make_venv "$1" "$python"
    exec 9<&-
  fi
  say "set up in $((SECONDS - begun)) s"
}
