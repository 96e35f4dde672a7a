#!/usr/bin/env bash
# Installs, upgrades, removes and purges the package with dpkg in a Debian of its own, a folder. Needs root for chroot.
#
#   image/verify-deb.sh FILE.deb
. "$(dirname "$0")/debian.sh"
FILE=$(realpath "${1:?name a package}")
[ "$(id -u)" = 0 ] || die "chroot needs root"
command -v systemd-analyze >/dev/null && {
  unit="$BUILD/pillarbox.service"
  sed 's|^ExecStart=/usr/bin/pillarbox|ExecStart=/bin/true|' "$ROOT_DIR/image/deb/pillarbox.service" > "$unit"
  systemd-analyze verify "$unit" 2>&1 | (! grep -F "$unit") || die "systemd does not understand the unit"
  exposure=$(systemd-analyze security --no-pager --offline=true "$unit" 2>/dev/null | sed -n 's/.*exposure level[^:]*: \([0-9.]*\).*/\1/p')
  say "ok: systemd takes the unit; exposure ${exposure:-not told} of 10"
}
JAIL="$BUILD/jail"
debian_root "$BUILD/debootstrap" "$DEBIAN_TOOLS" "$HOST_ARCH" debootstrap
if [ ! -e "$BUILD/jail.tar" ]; then
  rm -rf "$JAIL"
  DEBOOTSTRAP_DIR="$BUILD/debootstrap/usr/share/debootstrap" "$BUILD/debootstrap/usr/sbin/debootstrap" --variant=minbase \
    --keyring="$DEBIAN_KEYRING" --include=adduser "$DEBIAN_TOOLS" "$JAIL" "$DEBIAN_MIRROR" > "$BUILD/debootstrap.log" 2>&1 ||
    { tail -5 "$BUILD/debootstrap.log" >&2; die "debootstrap failed"; }
  tar -C "$JAIL" -cf "$BUILD/jail.tar" .
fi
rm -rf "$JAIL"
mkdir -p "$JAIL"
tar -C "$JAIL" -xf "$BUILD/jail.tar"
in_jail() { PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$JAIL" "$@"; }
ok() { say "ok: $*"; }

# The same as a newer version.
rm -rf "$BUILD/newer"
dpkg-deb -R "$FILE" "$BUILD/newer"
version=$(sed -n 's/^Version: //p' "$BUILD/newer/DEBIAN/control")
sed -i "s/^Version: .*/Version: $version+next/" "$BUILD/newer/DEBIAN/control"
printf '# a line of the next version\n' >> "$BUILD/newer/etc/pillarbox/pillarbox.toml"
dpkg-deb --root-owner-group -Znone --build "$BUILD/newer" "$JAIL/newer.deb" > /dev/null
cp "$FILE" "$JAIL/first.deb"

in_jail dpkg -i /first.deb > "$BUILD/dpkg.log" 2>&1 || { cat "$BUILD/dpkg.log" >&2; die "it cannot be installed"; }
[ "$(in_jail stat -c '%a %U' /var/lib/pillarbox)" = "700 pillarbox" ] || die "the data folder is not the user's alone"
in_jail pillarbox check --file-only > /dev/null || die "the config file it comes with is not good"
grep -q '^MemoryMax=[0-9]*K$' "$JAIL/etc/systemd/system/pillarbox.service.d/50-board.conf" || die "no memory limit from the board"
[ -L "$JAIL/etc/systemd/system/multi-user.target.wants/pillarbox.service" ] || die "it would not start with the machine"
ok "installed: user, folder, config file, memory limit, start with the machine"

printf 'secret of its own\n' > "$JAIL/var/lib/pillarbox/mail"
printf 'hostname = "mail.example.org"\n' >> "$JAIL/etc/pillarbox/pillarbox.toml"
in_jail dpkg --force-confdef --force-confold -i /newer.deb > "$BUILD/dpkg.log" 2>&1 || die "it cannot be upgraded"
grep -q mail.example.org "$JAIL/etc/pillarbox/pillarbox.toml" || die "the upgrade lost what the administrator wrote"
[ -e "$JAIL/etc/pillarbox/pillarbox.toml.dpkg-dist" ] || die "the new config file is not shown"
ok "upgraded: the administrator's config file stays, the new one lies beside it"

in_jail dpkg -r pillarbox > /dev/null 2>&1 || die "it cannot be removed"
[ -e "$JAIL/etc/pillarbox/pillarbox.toml" ] && [ -e "$JAIL/var/lib/pillarbox/mail" ] && [ ! -e "$JAIL/usr/bin/pillarbox" ] ||
  die "removing does not leave config and mail alone"
ok "removed: config and mail stay"
in_jail dpkg -P pillarbox > /dev/null 2>&1 || die "it cannot be purged"
[ ! -e "$JAIL/etc/pillarbox/pillarbox.toml" ] && [ ! -e "$JAIL/etc/systemd/system/pillarbox.service.d" ] || die "purging leaves its config"
[ -e "$JAIL/var/lib/pillarbox/mail" ] && in_jail getent passwd pillarbox > /dev/null || die "purging takes the mail"
ok "purged: the config is gone, the mail stays with its user"
rm -rf "$JAIL" "$BUILD/newer"
