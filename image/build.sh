#!/usr/bin/env bash
# Makes the card image of a board: pillarbox-NAME.img, the same packed (.img.xz) with its SHA-256, an update file for
# boxes that run already, and the list of what went into it.
#
#   image/build.sh --board NAME [--out FOLDER] [--no-xz]
#
# Needs Debian (or Ubuntu), Python 3.11 and the binary of board/build.sh, which it builds if it is not there. No root, no
# loop device, no container; from the network nothing but Debian's packages (and what board/build.sh needs). The same
# commit and packages give the same bytes: image/twice.sh compares.
. "$(dirname "$0")/debian.sh"

BOARD="" OUT="$BUILD/out" PACK=yes
while [ $# -gt 0 ]; do
  case $1 in
    --board) BOARD=${2:?--board needs a name}; shift ;;
    --out) OUT=${2:?--out needs a folder}; shift ;;
    --no-xz) PACK=no ;;
    -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) die "unknown option $1; see --help" ;;
  esac
  shift
done
HERE="$ROOT_DIR/image"
pack() { python3 "$HERE/pack.py" "$@"; }
if [ -z "$BOARD" ] || [ ! -e "$ROOT_DIR/board/$BOARD.toml" ] || ! grep -q '^\[image\]' "$ROOT_DIR/board/$BOARD.toml"; then
  names=$(cd "$ROOT_DIR/board" && grep -l '^\[image\]' ./*.toml | sed 's/^..//; s/\.toml//' | tr '\n' ' ')
  die "name a board that has an image: --board, one of $names"
fi
of_board() { pack board "$BOARD" "$1"; }
TARGET=$(of_board target) ARCH=$(of_board image.arch) SUITE=$(of_board image.suite)
WIFI=$(of_board image.wifi) FIRMWARE=$(of_board image.firmware)

export TZ=UTC LC_ALL=C
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$ROOT_DIR" log -1 --format=%ct 2>/dev/null || stat -c %Y "$ROOT_DIR/Cargo.toml")}
export SOURCE_DATE_EPOCH
VERSION=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$ROOT_DIR/Cargo.toml" | head -n 1)
VERSION=${PILLARBOX_VERSION:-$VERSION}
BINARY=${PILLARBOX_BINARY:-$BUILD/bin/$TARGET/pillarbox}
[ -x "$BINARY" ] || "$ROOT_DIR/board/build.sh" "$BOARD"

: > "$BUILD/manifest.new"
say "packages of Debian"
# shellcheck disable=SC2086
debian_root "$TOOLS/root" "$DEBIAN_TOOLS" "$HOST_ARCH" $IMAGE_TOOLS
debian_tool "$TOOLS/root" mcopy mkfs.vfat mksquashfs depmod zstd xz
export PATH="$TOOLS/bin:$PATH"
# What makes the image is no part of it: only its version is noted.
mv "$BUILD/manifest.new" "$BUILD/manifest.tools"
: > "$BUILD/manifest.new"
kernel=$(debian_apt "$SUITE" "$ARCH" apt-cache depends "$(of_board image.kernel)" |
  sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
[ -n "$kernel" ] || die "$(of_board image.kernel) names no kernel"
debian_unpack "$BUILD/kernel-$ARCH" "$SUITE" "$ARCH" "$kernel"
debian_root "$BUILD/card-$ARCH" "$SUITE" "$ARCH" busybox-static e2fsprogs openntpd
programs="usr/sbin/mke2fs usr/sbin/e2fsck usr/sbin/resize2fs usr/sbin/ntpd"
[ "$FIRMWARE" = no ] || debian_unpack "$BUILD/firmware-$ARCH" "$SUITE" "$ARCH" raspi-firmware
[ "$WIFI" = no ] || debian_root "$BUILD/wifi-$ARCH" "$SUITE" "$ARCH" wpasupplicant firmware-brcm80211

WORK="$BUILD/image/$BOARD"
rm -rf "$WORK"
mkdir -p "$WORK/loader/bin" "$WORK/loader/root" "$WORK/system" "$WORK/boot" "$OUT"
busybox="$BUILD/card-$ARCH/usr/bin/busybox"
# Which of its programs a busybox has is written in it, one name behind the other.
applets() { python3 - "$busybox" <<'END'
import re, sys
data = open(sys.argv[1], "rb").read()
found = max(re.findall(rb"\[\0\[\[\0(?:[a-z0-9_.+-]+\0){100,}", data), key=len)
print("\n".join(name.decode() for name in found.split(b"\0") if name not in (b"", b"busybox")))
END
}

say "the loader"
install -m 755 "$HERE/loader/init" "$WORK/loader/init"
install -m 644 "$HERE/loader/slots" "$WORK/loader/slots"
install -m 755 "$busybox" "$WORK/loader/bin/busybox"
for applet in $(applets); do ln -sf busybox "$WORK/loader/bin/$applet"; done
for folder in dev proc sys run root; do mkdir -p "$WORK/loader/$folder"; done
# shellcheck disable=SC2046
pack modules "$BUILD/kernel-$ARCH" "$WORK/loader" $(of_board image.modules)
if [ "$WIFI" = yes ]; then
  mkdir -p "$WORK/loader/lib/firmware/brcm" "$WORK/loader/lib/firmware/cypress"
  for folder in brcm cypress; do
    (cd "$BUILD/wifi-$ARCH" && find . -path "*/lib/firmware/$folder/*" \( -name '*43430*' -o -name '*43436*' -o \
      -name '*43455*' -o -name '*43456*' \) ! -name '*.hcd') | while read -r file; do
      cp -P "$BUILD/wifi-$ARCH/$file" "$WORK/loader/lib/firmware/$folder/"
    done
  done
fi
(cd "$WORK/loader" && depmod -b . "$(basename "$(echo lib/modules/*)")")
rm -f "$WORK"/loader/lib/modules/*/modules.*.bin.tmp
pack cpio "$WORK/loader" "$WORK/initramfs.cpio"
zstd -q -19 -f "$WORK/initramfs.cpio" -o "$WORK/boot/initramfs.zst"

say "the system"
for folder in usr/bin usr/sbin usr/lib etc proc sys dev run tmp boot data var/lib var/log; do mkdir -p "$WORK/system/$folder"; done
ln -s usr/bin "$WORK/system/bin"
ln -s usr/sbin "$WORK/system/sbin"
ln -s usr/lib "$WORK/system/lib"
ln -s ../run "$WORK/system/var/run"
install -m 755 "$busybox" "$WORK/system/usr/bin/busybox"
for applet in $(applets); do
  # The real ones come below.
  [ "$applet" = mke2fs ] || ln -sf busybox "$WORK/system/usr/bin/$applet"
done
for program in init reboot poweroff halt syslogd uevent; do ln -sf ../bin/busybox "$WORK/system/usr/sbin/$program"; done
# shellcheck disable=SC2086
pack libraries "$BUILD/card-$ARCH" "$WORK/system" $programs
[ "$WIFI" = no ] || pack libraries "$BUILD/wifi-$ARCH" "$WORK/system" usr/sbin/wpa_supplicant
cp -r "$HERE/system/." "$WORK/system/"
cp "$BUILD/card-$ARCH/etc/mke2fs.conf" "$WORK/system/etc/"
ln -sf /run/resolv.conf "$WORK/system/etc/resolv.conf"
ln -sf /proc/mounts "$WORK/system/etc/mtab"
install -m 755 "$BINARY" "$WORK/system/usr/bin/pillarbox"
printf 'BOARD=%s\nVERSION=%s\n' "$BOARD" "$VERSION" > "$WORK/system/etc/pillarbox-release"
find "$WORK/system" -type f -exec chmod u=rwX,go=rX {} +
find "$WORK/system" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
make_system() {
  rm -f "$2"
  mksquashfs "$1" "$2" -noappend -all-root -no-xattrs -comp zstd -Xcompression-level 19 -b 128K -no-progress \
    -processors 2 > "$WORK/mksquashfs.log" 2>&1 || { cat "$WORK/mksquashfs.log" >&2; die "the system cannot be packed"; }
}
make_system "$WORK/system" "$WORK/system.squashfs"

say "the boot partition"
release=$(basename "$(echo "$BUILD/kernel-$ARCH"/boot/vmlinuz-*)")
gzip -9nc "$BUILD/kernel-$ARCH/boot/$release" > "$WORK/boot/kernel8.img"
# With `quiet` nothing but our own words is on the screen; a kernel that ends starts anew.
printf 'console=tty0 console=%s panic=10 quiet\n' "$(of_board image.console)" > "$WORK/boot/cmdline.txt"
sed 's/$/\r/' "$HERE/pillarbox-setup.toml" > "$WORK/boot/pillarbox-setup.toml"
if [ "$FIRMWARE" = yes ]; then
  firmware=$(dirname "$(find "$BUILD/firmware-$ARCH" -name bootcode.bin)")
  cp "$firmware"/bootcode.bin "$firmware"/start.elf "$firmware"/fixup.dat "$firmware"/start4.elf "$firmware"/fixup4.dat "$WORK/boot/"
  cp "$BUILD/firmware-$ARCH"/usr/share/doc/raspi-firmware/copyright "$WORK/boot/LICENCE.firmware.txt"
  for tree in $(of_board image.device-trees); do
    file=$(find "$BUILD/kernel-$ARCH" -name "$tree" | head -n 1)
    [ -n "$file" ] || die "the kernel has no device tree $tree"
    cp "$file" "$WORK/boot/"
  done
  printf '%s\n' '# What the board reads first.' arm_64bit=1 kernel=kernel8.img 'initramfs initramfs.zst followkernel' \
    enable_uart=1 gpu_mem=16 upstream_kernel=1 disable_overscan=1 > "$WORK/boot/config.txt"
fi
BOOT_MIB=$(of_board image.boot-mib)
find "$WORK/boot" -exec touch -d "@$SOURCE_DATE_EPOCH" {} +
rm -f "$WORK/boot.vfat"
truncate -s "${BOOT_MIB}M" "$WORK/boot.vfat"
mkfs.vfat -F 32 -s 1 --invariant -n PILLARBOX -i 50424F58 "$WORK/boot.vfat" > /dev/null
for file in "$WORK"/boot/*; do MTOOLS_SKIP_CHECK=1 mcopy -m -i "$WORK/boot.vfat" "$file" ::; done

say "the card"
name="pillarbox-$BOARD"
pack card "$OUT/$name.img" "$WORK/boot.vfat" "$WORK/system.squashfs" \
  "$BOOT_MIB" "$(of_board image.slot-mib)" "$(of_board image.data-mib)"
pack update "$BOARD" "$VERSION" "$WORK/system.squashfs" "$OUT/$name.update"
sort -u "$BUILD/manifest.new" > "$OUT/$name.manifest"
printf 'pillarbox %s %s %s\n' "$VERSION" "$TARGET" "$(sha256sum "$BINARY" | cut -d' ' -f1)" >> "$OUT/$name.manifest"
if [ "$PACK" = yes ]; then
  xz -T 2 -6 -k -f "$OUT/$name.img"
  (cd "$OUT" && sha256sum "$name.img.xz" "$name.img" "$name.update" > "$name.sha256")
fi
say "$(du -m --apparent-size "$OUT/$name.img" | cut -f1) MiB, kernel $(($(stat -c %s "$WORK/boot/kernel8.img") >> 10)) KiB," \
  "loader $(($(stat -c %s "$WORK/boot/initramfs.zst") >> 10)) KiB, system $(($(stat -c %s "$WORK/system.squashfs") >> 10)) KiB" \
  "$([ "$PACK" = no ] || echo ", packed $(($(stat -c %s "$OUT/$name.img.xz") >> 10)) KiB")"
say "$OUT/$name.img"
