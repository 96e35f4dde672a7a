#!/usr/bin/env bash
# Boots an image on an emulated machine and uses it from outside: image/verify.py says what is tried.
#
#   image/verify.sh [--board generic-arm64] [--machine virt|raspi3b] [--quick] [--image FILE]
#
# --quick leaves out what takes minutes: filling the data partition and two of three kills. Ports are free ones of the
# loopback address. Ends what it starts.
. "$(dirname "$0")/debian.sh"

BOARD=generic-arm64 MACHINE=virt IMAGE="" MORE=()
while [ $# -gt 0 ]; do
  case $1 in
    --board) BOARD=${2:?--board needs a name}; shift ;;
    --machine) MACHINE=${2:?--machine needs a name}; shift ;;
    --image) IMAGE=${2:?--image needs a file}; shift ;;
    --quick) MORE+=(--quick) ;;
    *) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;;
  esac
  shift
done
IMAGE=${IMAGE:-$BUILD/out/pillarbox-$BOARD.img}
[ -e "$IMAGE" ] || die "$IMAGE is missing: image/build.sh --board $BOARD"
# shellcheck disable=SC2086
debian_root "$TOOLS/root" "$DEBIAN_TOOLS" "$HOST_ARCH" $IMAGE_TOOLS
debian_tool "$TOOLS/root" mcopy mtype mkfs.vfat mksquashfs e2fsck debugfs
debian_root "$BUILD/qemu" "$DEBIAN_TOOLS" "$HOST_ARCH" qemu-system-arm
debian_tool "$BUILD/qemu" qemu-system-aarch64
export PATH="$TOOLS/bin:$PATH" PILLARBOX_QEMU_DATA="$BUILD/qemu/usr/share/qemu"
# The board's own binary on an emulated processor looks into the store on the card.
# shellcheck disable=SC2086
debian_root "$BUILD/qemu-user" "$DEBIAN_TOOLS" "$HOST_ARCH" $EMULATORS
printf '#!/bin/sh\nexec %s -cpu cortex-a53 %s "$@"\n' "$BUILD/qemu-user/usr/bin/qemu-aarch64-static" \
  "$BUILD/image/$BOARD/system/usr/bin/pillarbox" > "$TOOLS/bin/pillarbox-on-card"
chmod 755 "$TOOLS/bin/pillarbox-on-card"
exec python3 "$ROOT_DIR/image/verify.py" --image "$IMAGE" --machine "$MACHINE" --work "$BUILD/verify" \
  --program "$TOOLS/bin/pillarbox-on-card" \
  --system "$BUILD/image/$BOARD/system" ${MORE[@]+"${MORE[@]}"}
