#!/usr/bin/env bash
# Runs a cross-built binary on this machine, on an emulated processor: the command line, a journey over TLS, dates,
# files and a clock after 2038, every transcript of tests/session over TLS (with --transcripts, which needs cargo).
#
#   board/qemu-user.sh BOARD|TARGET... [--transcripts]
#
# Figures of memory and speed mean nothing here: they are the emulator's.
. "$(dirname "$0")/../image/debian.sh"

TRANSCRIPTS=no
WANTED=()
for word in "$@"; do
  case $word in
    --transcripts) TRANSCRIPTS=yes ;;
    -*) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) WANTED+=("$word") ;;
  esac
done
[ ${#WANTED[@]} -gt 0 ] || die "name a board or a target"
# shellcheck disable=SC2086
debian_root "$BUILD/qemu-user" "$DEBIAN_TOOLS" "$HOST_ARCH" $EMULATORS
debian_tool "$BUILD/qemu-user" qemu-aarch64 qemu-arm qemu-x86_64
faketime=$(find "$BUILD/qemu-user" -name libfaketime.so.1)
cd "$ROOT_DIR"
for name in "${WANTED[@]}"; do
  target=$name
  [ ! -e "board/$name.toml" ] || target=$(python3 image/pack.py board "$name" target)
  # The least processor that a board of the target has.
  case $target in
    aarch64-*) emulator="qemu-aarch64-static -cpu cortex-a53" ;;
    armv7-*) emulator="qemu-arm-static -cpu cortex-a7" ;;
    arm-*) emulator="qemu-arm-static -cpu arm1176" ;;
    x86_64-*) emulator="qemu-x86_64-static -cpu qemu64" ;;
    *) die "no emulator is known for $target" ;;
  esac
  binary="$BUILD/bin/$target/pillarbox"
  [ -x "$binary" ] || die "$binary is missing: board/build.sh $target"
  program="$TOOLS/bin/pillarbox-$target"
  printf '#!/bin/sh\nexec %s/usr/bin/%s %s "$@"\n' "$BUILD/qemu-user" "$emulator" "$binary" > "$program"
  chmod 755 "$program"
  # The same in 2038: the emulator asks its C library for the time, and libfaketime answers. Timers go on as they are.
  dynamic=${emulator%% *}
  cat > "$program-late" <<END
#!/bin/sh
export TOOL_PRELOAD="$faketime" FAKETIME='@2038-02-01 12:00:00' DONT_FAKE_MONOTONIC=1 TZ=UTC
exec "$TOOLS/bin/${dynamic%-static}" ${emulator#* } "$binary" "\$@"
END
  chmod 755 "$program-late"
  say "== $target on ${emulator##* }"
  python3 "$ROOT_DIR/board/qemu_user.py" "$program" "$program-late"
  if [ "$TRANSCRIPTS" = yes ]; then
    PILLARBOX_PROGRAM="$program" cargo test --locked --test session
  fi
done
