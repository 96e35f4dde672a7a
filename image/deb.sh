#!/usr/bin/env bash
# Makes Debian packages: target/board/out/pillarbox_VERSION_ARCH.deb.
#
#   image/deb.sh amd64|arm64|armhf...
#
# They hold the static binaries of board/build.sh; that of armhf is built for ARMv6, so that it runs on a Pi Zero with
# Raspberry Pi OS as well. PILLARBOX_BINARY takes another one.
. "$(dirname "$0")/debian.sh"
[ $# -gt 0 ] || die "name an architecture: amd64, arm64, armhf"
VERSION=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$ROOT_DIR/Cargo.toml" | head -n 1)
VERSION=${PILLARBOX_VERSION:-$VERSION}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$ROOT_DIR" log -1 --format=%ct 2>/dev/null || stat -c %Y "$ROOT_DIR/Cargo.toml")}
export SOURCE_DATE_EPOCH
OUT="$BUILD/out"
mkdir -p "$OUT"
for arch in "$@"; do
  case $arch in
    amd64) binary="$BUILD/bin/x86_64-unknown-linux-musl/pillarbox" ;;
    arm64) binary="$BUILD/bin/aarch64-unknown-linux-musl/pillarbox" ;;
    armhf) binary="$BUILD/bin/arm-unknown-linux-musleabihf/pillarbox" ;;
    *) die "there is no package for $arch" ;;
  esac
  binary=${PILLARBOX_BINARY:-$binary}
  [ -x "$binary" ] || die "$binary is missing; see --help of board/build.sh"
  tree="$BUILD/deb/$arch"
  rm -rf "$tree"
  umask 022
  mkdir -p "$tree/DEBIAN" "$tree/usr/bin" "$tree/usr/lib/systemd/system" "$tree/etc/pillarbox" "$tree/usr/share/doc/pillarbox"
  install -m 755 "$binary" "$tree/usr/bin/pillarbox"
  install -m 644 "$ROOT_DIR/image/deb/pillarbox.service" "$tree/usr/lib/systemd/system/"
  install -m 644 "$ROOT_DIR/image/deb/pillarbox.toml" "$tree/etc/pillarbox/"
  install -m 644 "$ROOT_DIR/pillarbox.sample.toml" "$ROOT_DIR/README.md" "$tree/usr/share/doc/pillarbox/"
  gzip -9nc "$ROOT_DIR/CHANGELOG.md" > "$tree/usr/share/doc/pillarbox/changelog.gz"
  {
    printf 'Pillarbox is licensed under either of MIT or Apache-2.0 (/usr/share/common-licenses/Apache-2.0), at your option.\n\n'
    cat "$ROOT_DIR/LICENSE-MIT"
  } > "$tree/usr/share/doc/pillarbox/copyright"
  # The newest symbol version of the C library that the binary asks for; none in a static one.
  libc=$(grep -aoE 'GLIBC_2\.[0-9]+' "$binary" | sort -uV | tail -n 1 | cut -d_ -f2 || true)
  depends=${libc:+libc6 (>= $libc), libgcc-s1, }
  cat > "$tree/DEBIAN/control" <<END
Package: pillarbox
Version: $VERSION
Architecture: $arch
Maintainer: The Pillarbox project <pillarbox@localhost>
Section: mail
Priority: optional
Depends: ${depends}adduser, init-system-helpers
Installed-Size: $(du -sk --apparent-size "$tree" | cut -f1)
Description: mail server for small computers that stand alone
 SMTP, IMAP and POP3, the mail store and a spam filter in one process with little
 memory. What it has acknowledged survives a pulled plug.
END
  printf '/etc/pillarbox/pillarbox.toml\n' > "$tree/DEBIAN/conffiles"
  install -m 755 "$ROOT_DIR/image/deb/postinst" "$ROOT_DIR/image/deb/prerm" "$ROOT_DIR/image/deb/postrm" "$tree/DEBIAN/"
  (cd "$tree" && find usr etc -type f -exec md5sum {} + | LC_ALL=C sort -k 2 > DEBIAN/md5sums)
  dpkg-deb --root-owner-group -Zxz --build "$tree" "$OUT/pillarbox_${VERSION}_$arch.deb" > /dev/null
  say "$OUT/pillarbox_${VERSION}_$arch.deb: $(stat -c %s "$OUT/pillarbox_${VERSION}_$arch.deb") bytes"
done
