#!/usr/bin/env bash
# Builds the static binary for a board or a target, without containers and without root.
#
#   board/build.sh BOARD|TARGET... [--profile PROFILE] [--cross]
#
# BOARD is the name of a file in board/ (pi-3), TARGET a triple that one of them names. The binary is then
# target/board/bin/TARGET/pillarbox (PILLARBOX_BUILD changes target/board).
#
# The compiler and the library's source are Debian's rustc-web and rust-web-src, the linker is Debian's lld, the C library
# is zig's from PyPI, cargo is yours: nothing is installed, everything lies in target/board. With --cross the build is
# done by `cross` in a container instead (needs Docker or Podman and rustup).
. "$(dirname "$0")/../image/debian.sh"

PROFILE=dist
CROSS=no
WANTED=()
while [ $# -gt 0 ]; do
  case $1 in
    --profile) PROFILE=${2:?--profile needs a name}; shift ;;
    --cross) CROSS=yes ;;
    -h | --help) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 0 ;;
    -*) die "unknown option $1; see --help" ;;
    *) WANTED+=("$1") ;;
  esac
  shift
done
[ ${#WANTED[@]} -gt 0 ] || die "name a board or a target: $(cd "$ROOT_DIR/board" && echo *.toml | sed 's/\.toml//g')"

# What is behind NAME: a board's target, or the target itself if a board has it.
target_of() {
  local file="$ROOT_DIR/board/$1.toml"
  if [ -e "$file" ]; then
    sed -n 's/^target = "\(.*\)"$/\1/p' "$file"
  elif grep -qx "target = \"$1\"" "$ROOT_DIR"/board/*.toml; then
    printf '%s\n' "$1"
  else
    die "there is neither a board nor a target $1"
  fi
}

cd "$ROOT_DIR"
COMMAND=()
if [ "$CROSS" = yes ]; then
  command -v cross >/dev/null || die "cross is missing: cargo install cross --version 0.2.5"
  # Without an engine cross 0.2.5 goes to rustup first and changes the installed toolchain.
  docker info >/dev/null 2>&1 || podman info >/dev/null 2>&1 ||
    die "no container engine answers: start Docker or Podman, or build without --cross"
  # It reads Cross.toml by itself, and cross.toml only where it is told.
  export CROSS_CONFIG="$ROOT_DIR/cross.toml"
  COMMAND=(cross build --locked)
else
  debian_unpack "$BUILD/rust" bookworm "$HOST_ARCH" \
    rustc-web libstd-rust-web-dev libstd-rust-web-1.96 rust-web-src libllvm22 lld-22
  # With musl on 32 bits std asks for the time by the call whose seconds have 32 bits, and ends the program when they
  # are full, in 2038. musl has the other one under the name that std uses with glibc (std 1.96).
  clock="$BUILD/rust/usr/lib/rustlib/src/rust/library/std/src/sys/pal/unix/time.rs"
  if grep -q '^ *target_env = "gnu",$' "$clock"; then
    sed -i 's/^\( *\)target_env = "gnu",$/\1any(target_env = "gnu", target_env = "musl"),/' "$clock"
    [ "$(grep -c '^ *any(target_env = "gnu", target_env = "musl"),$' "$clock")" = 4 ] ||
      die "std is another one than the clock of 32-bit boards was mended in: $clock"
  fi
  if [ ! -x "$BUILD/python/bin/cargo-zigbuild" ]; then
    say "fetching zig and cargo-zigbuild"
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$BUILD/python" \
      ziglang==0.17.1 cargo-zigbuild==0.24.0
  fi
  cat > "$TOOLS/bin/rustc-web" <<END
#!/bin/sh
LD_LIBRARY_PATH=$BUILD/rust/usr/lib/$(uname -m)-linux-gnu exec $BUILD/rust/usr/bin/rustc "\$@"
END
  chmod 755 "$TOOLS/bin/rustc-web"
  export RUSTC="$TOOLS/bin/rustc-web" RUSTC_BOOTSTRAP=1
  # zig links by an lld of its own and lets it fold nothing; Debian's links the same once more, functions of the same code
  # as one. What the store writes out for each table is a tenth of the program, and much of it is alike.
  cat > "$TOOLS/bin/zig" <<END
#!/bin/bash
zig=$BUILD/python/ziglang/zig
for word; do case \$word in -c | -S | -E | ar | ranlib | lib) exec "\$zig" "\$@" ;; esac; done
[ "\${1:-}" = cc ] || exec "\$zig" "\$@"
said=\$("\$zig" "\$@" -v 2>&1) || { status=\$?; printf '%s\n' "\$said" >&2; exit \$status; }
link=\$(printf '%s\n' "\$said" | sed -n 's/^ld\.lld //p' | tail -n 1)
[ -n "\$link" ] || exit 0
LD_LIBRARY_PATH=$BUILD/rust/usr/lib/$(uname -m)-linux-gnu exec $BUILD/rust/usr/lib/llvm-22/bin/ld.lld \$link --icf=all -O2
END
  chmod 755 "$TOOLS/bin/zig"
  export CARGO_ZIGBUILD_ZIG_PATH="$TOOLS/bin/zig"
  CARGO_HOME=${CARGO_HOME:-$HOME/.cargo}
  # No path of this machine gets into the binary, so it is the same wherever it is built.
  remap="--remap-path-prefix=$CARGO_HOME=/cargo --remap-path-prefix=$BUILD=/build --remap-path-prefix=$ROOT_DIR=/pillarbox"
  export CFLAGS="-ffile-prefix-map=$CARGO_HOME=/cargo -ffile-prefix-map=$BUILD=/build ${CFLAGS:-}"
  COMMAND=("$BUILD/python/bin/cargo-zigbuild" zigbuild --locked
    "-Zbuild-std=std,panic_abort" "-Zbuild-std-features=optimize_for_size")
fi

for name in "${WANTED[@]}"; do
  target=$(target_of "$name")
  if [ "$CROSS" = no ]; then
    # Thumb-2 needs a quarter less than ARM's own encoding. ARMv6 has none, but reads words wherever they lie (Linux lets
    # it). There a panic names its file and not its line, so that those of a file are one, and zstd's slower ways to compress,
    # which only backups and the making of a spam seed use, give way to the quick one. LLVM's outliner of machine code would
    # save 0.8 MB, but the binary that it makes (LLVM 22, arm1176) ends as soon as it starts.
    smaller="" c=""
    case $target in
      armv7-*) smaller="-Ctarget-feature=+thumb-mode" ;;
      arm-*)
        smaller="-Ctarget-feature=-strict-align -Zlocation-detail=file"
        for way in DFAST GREEDY LAZY LAZY2 BTLAZY2 BTOPT BTULTRA; do c="$c -DZSTD_EXCLUDE_${way}_BLOCK_COMPRESSOR"; done
        ;;
    esac
    export "CFLAGS_${target//-/_}=$CFLAGS$c"
    # Debian ships no start files of musl, and zig brings its own. Where a panic ends the program nobody reads the
    # tables of how to unwind its stack: they are an eighth of it.
    variable=CARGO_TARGET_$(printf '%s' "$target" | tr 'a-z-' 'A-Z_')_RUSTFLAGS
    export "$variable=-Clink-self-contained=no -Cforce-unwind-tables=no $smaller $remap"
  fi
  say "building $target, profile $PROFILE"
  "${COMMAND[@]}" --profile "$PROFILE" --target "$target" --bin pillarbox --target-dir "$BUILD/cargo"
  mkdir -p "$BUILD/bin/$target"
  install -m 755 "$BUILD/cargo/$target/$PROFILE/pillarbox" "$BUILD/bin/$target/pillarbox"
  size=$(stat -c %s "$BUILD/bin/$target/pillarbox")
  say "$BUILD/bin/$target/pillarbox: $size bytes"
  # `cross` builds with the standard library as rustup has it, and with unwinding.
  if [ "$PROFILE" = dist ] && [ "$CROSS" = no ] && [ "$size" -gt $((8 << 20)) ]; then
    # ARMv6 was never brought below it.
    case $target in
      arm-*) say "that is more than the 8 MiB a binary should have" ;;
      *) die "that is more than the 8 MiB a binary may have" ;;
    esac
  fi
done
