# shellcheck shell=bash
# Debian packages without root and without touching the machine's own: fetched with a private apt state into a folder
# of the build and unpacked there. Sourced by board/build.sh, image/build.sh and what tests them.
#
#   debian_unpack FOLDER SUITE ARCH PACKAGE...   unpacks the packages themselves
#   debian_root FOLDER SUITE ARCH PACKAGE...     unpacks them with all they depend on
#   debian_tool FOLDER PROGRAM...                wrappers in $TOOLS/bin that run a program of such a root
#
# What was fetched (name, version, architecture, SHA-256) is added to $BUILD/manifest.new, and its bytes to $BUILD/fetched.
set -euo pipefail
# What is made has the modes that are meant, whatever the caller's umask.
umask 022

ROOT_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BUILD=${PILLARBOX_BUILD:-$ROOT_DIR/target/board}
TOOLS=$BUILD/tools
DEBIAN_MIRROR=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
DEBIAN_SECURITY=${DEBIAN_SECURITY:-http://deb.debian.org/debian-security}
DEBIAN_KEYRING=${DEBIAN_KEYRING:-/usr/share/keyrings/debian-archive-keyring.gpg}
# Debian's stable, out of which the card's system is made.
DEBIAN_CARD=trixie
# The suite whose compiler and tools the scripts run.
DEBIAN_TOOLS=bookworm
# What makes an image and looks into one, and what runs a binary for another processor here (and in another year).
EMULATORS="qemu-user-static qemu-user libfaketime"
IMAGE_TOOLS="mtools dosfstools squashfs-tools kmod zstd xz-utils e2fsprogs"
mkdir -p "$BUILD" "$TOOLS/bin"

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

for program in apt-get dpkg-deb sha256sum python3; do
  command -v "$program" >/dev/null || die "$program is missing: this script needs Debian (or Ubuntu) and Python 3"
done
HOST_ARCH=$(dpkg --print-architecture)

# Runs a command of apt with a state of its own for SUITE and ARCH.
debian_apt() {
  local suite=$1 arch=$2 command=$3 state="$BUILD/apt/$1-$2"
  shift 3
  if [ ! -e "$state/ready" ]; then
    [ -e "$DEBIAN_KEYRING" ] || die "$DEBIAN_KEYRING is missing: install debian-archive-keyring"
    mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$state/etc/apt.conf.d" "$state/etc/preferences.d"
    : > "$state/status"
    cat > "$state/sources.list" <<END
deb [arch=$arch signed-by=$DEBIAN_KEYRING] $DEBIAN_MIRROR $suite main non-free-firmware
deb [arch=$arch signed-by=$DEBIAN_KEYRING] $DEBIAN_MIRROR $suite-updates main non-free-firmware
deb [arch=$arch signed-by=$DEBIAN_KEYRING] $DEBIAN_SECURITY $suite-security main non-free-firmware
END
    debian_apt_raw "$state" "$arch" apt-get update -q >"$state/update.log" 2>&1 ||
      { cat "$state/update.log" >&2; die "Debian's package lists of $suite cannot be fetched"; }
    : > "$state/ready"
  fi
  debian_apt_raw "$state" "$arch" "$command" "$@"
}

debian_apt_raw() {
  local state=$1 arch=$2 command=$3
  shift 3
  "$command" -o Dir::Etc::sourcelist="$state/sources.list" -o Dir::Etc::sourceparts=/dev/null \
    -o Dir::Etc::parts="$state/etc/apt.conf.d" -o Dir::Etc::preferencesparts="$state/etc/preferences.d" \
    -o Dir::Etc::preferences=/dev/null -o Dir::State="$state" -o Dir::State::lists="$state/lists" \
    -o Dir::State::status="$state/status" -o Dir::Cache="$state/cache" -o APT::Architecture="$arch" \
    -o APT::Architectures::="$arch" -o APT::Sandbox::User="" -o Acquire::Languages=none -o Acquire::Retries=3 \
    -o APT::Install-Recommends=false -o Debug::NoLocking=true "$@"
}


# debian_unpack FOLDER SUITE ARCH PACKAGE...
debian_unpack() {
  local folder=$1 suite=$2 arch=$3 debs="$1.debs" deb
  shift 3
  if [ "$(cat "$folder.has" 2>/dev/null)" != "$*" ]; then
    rm -rf "$folder" "$debs" "$folder.notes" "$folder.for"
    mkdir -p "$folder" "$debs"
    debian_apt "$suite" "$arch" true
    (cd "$debs" && debian_apt "$suite" "$arch" apt-get download -q "$@" >"$folder.log" 2>&1) ||
      { cat "$folder.log" >&2; die "packages cannot be fetched: $*"; }
    cat "$debs"/*.deb | wc -c >> "$BUILD/fetched"
    for deb in "$debs"/*.deb; do
      dpkg-deb -x "$deb" "$folder"
      printf '%s %s\n' "$(dpkg-deb -W --showformat '${Package} ${Version} ${Architecture}' "$deb")" \
        "$(sha256sum "$deb" | cut -d' ' -f1)" >> "$folder.notes"
    done
    rm -rf "$debs"
    printf '%s' "$*" > "$folder.has"
  fi
  cat "$folder.notes" >> "$BUILD/manifest.new"
}

# debian_root FOLDER SUITE ARCH PACKAGE...
debian_root() {
  local folder=$1 suite=$2 arch=$3 names
  shift 3
  if [ "$(cat "$folder.for" 2>/dev/null)" = "$*" ]; then
    # shellcheck disable=SC2046
    debian_unpack "$folder" "$suite" "$arch" $(cat "$folder.has")
    return
  fi
  # On an empty system apt names the packages and all they need.
  names=$(debian_apt "$suite" "$arch" apt-get install -q -y --print-uris "$@" |
    sed -n "s/^'[^']*' \([^_]*\)_[^ ]* .*/\1/p") || die "these cannot be resolved: $*"
  # shellcheck disable=SC2086
  debian_unpack "$folder" "$suite" "$arch" $names
  printf '%s' "$*" > "$folder.for"
}

# debian_tool FOLDER PROGRAM...: with the root's own C library, whatever this machine's is. TOOL_PRELOAD names a library
# that a program is to be run with.
debian_tool() {
  local folder=$1 program path loader
  shift
  loader=$(find "$folder/lib64" "$folder/usr/lib64" "$folder/lib" -maxdepth 1 -name 'ld-linux-*' 2>/dev/null | head -n 1 || true)
  for program in "$@"; do
    path=$(find "$folder/usr/bin" "$folder/usr/sbin" "$folder/bin" "$folder/sbin" -maxdepth 1 -name "$program" 2>/dev/null | head -n 1 || true)
    [ -n "$path" ] || die "$program is not in $folder"
    # A link to /bin/kmod means the one in the root.
    case $(readlink "$path" || true) in /*) path="$folder$(readlink "$path")" ;; esac
    cat > "$TOOLS/bin/$program" <<END
#!/bin/sh
libraries=\$(ls -d $folder/lib/*-linux-gnu* $folder/usr/lib/*-linux-gnu* $folder/usr/lib/*-linux-gnu*/pulseaudio 2>/dev/null | tr '\n' ':')
exec "$loader" --library-path "\$libraries" \${TOOL_PRELOAD:+--preload "\$TOOL_PRELOAD"} --argv0 "$program" "$path" "\$@"
END
    chmod 755 "$TOOLS/bin/$program"
  done
}
