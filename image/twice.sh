#!/usr/bin/env bash
# Makes the card image of a board twice, the second time in other surroundings (umask, time zone, language, times of the
# files), and compares all that comes out byte for byte. The first stays in target/board/out.
#
#   image/twice.sh [--board generic-arm64]
#
# The binary is taken as it is: PILLARBOX_BINARY, or that of board/build.sh.
. "$(dirname "$0")/debian.sh"

BOARD=generic-arm64
while [ $# -gt 0 ]; do
  case $1 in
    --board) BOARD=${2:?--board needs a name}; shift ;;
    *) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;;
  esac
  shift
done
FIRST="$BUILD/out" SECOND="$BUILD/twice/out"
rm -rf "$BUILD/twice"
mkdir -p "$SECOND"
BINARY=${PILLARBOX_BINARY:-$BUILD/bin/$(python3 "$ROOT_DIR/image/pack.py" board "$BOARD" target)/pillarbox}
[ -x "$BINARY" ] || "$ROOT_DIR/board/build.sh" "$BOARD"
PILLARBOX_BINARY="$BINARY" "$ROOT_DIR/image/build.sh" --board "$BOARD"
cp "$BINARY" "$BUILD/twice/pillarbox"
(
  umask 077
  TZ=Asia/Kolkata LC_ALL=C.UTF-8 PILLARBOX_BINARY="$BUILD/twice/pillarbox" \
    "$ROOT_DIR/image/build.sh" --board "$BOARD" --out "$SECOND"
)
different=0
for file in "$FIRST/pillarbox-$BOARD".*; do
  name=$(basename "$file")
  if place=$(cmp "$file" "$SECOND/$name"); then
    say "the same: $name, $(stat -c %s "$file") bytes"
  else
    say "DIFFERENT: ${place##*/}"
    different=1
  fi
done
[ $different = 0 ] || die "the same inputs gave other bytes"
rm -rf "$BUILD/twice"
