#!/usr/bin/env python3
"""Sizes and speeds of the `dist` profile at other levels of optimisation: what its settings in Cargo.toml rest on.

    python3 benches/profiles.py [--target TRIPLE] [LEVEL/LTO ...]      s/fat 2/fat 3/fat s/thin unless named
    python3 benches/profiles.py --measure FILE ...                     measures binaries that are there already

Builds each one (with board/build.sh where a target is named, for its size alone; otherwise with cargo for this
computer) and prints a row of a table: bytes, and seconds of processor time (user, so that a busy computer matters
little) for taking 220,000 signatures, scanning 42 MB of mixed files, importing 2,000 letters and reading the whole
store. Takes minutes a row; Python's standard library only.
"""
import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LETTERS = 2000


def build(level, lto, target):
    """Builds one and returns where it is."""
    environment = dict(os.environ, CARGO_PROFILE_DIST_OPT_LEVEL=level, CARGO_PROFILE_DIST_LTO=lto)
    if target:
        subprocess.run([str(ROOT / "board/build.sh"), target], check=True, env=environment)
        return Path(os.environ.get("PILLARBOX_BUILD", ROOT / "target/board")) / "bin" / target / "pillarbox"
    subprocess.run(["cargo", "build", "--locked", "--profile", "dist", "--bin", "pillarbox"], check=True, cwd=ROOT, env=environment)
    return ROOT / "target/dist/pillarbox"


def write_letters(path):
    """An mbox of ordinary letters, one in ten with an attachment of some 60 KB."""
    draw = random.Random(3)
    words = [draw.randbytes(draw.randint(1, 5)).hex() for _ in range(4000)]
    with open(path, "w") as out:
        for number in range(LETTERS):
            out.write(f"From a@far.test Mon Jan  1 00:00:00 2024\nFrom: <a{number}@far.test>\nTo: <ann@bench.test>\n"
                      f"Subject: {' '.join(draw.choices(words, k=6))}\nDate: Mon, 01 Jan 2024 00:00:00 +0000\n"
                      f"Message-ID: <{number}@far.test>\n\n")
            for _ in range(900 if number % 10 == 0 else 40):
                out.write(" ".join(draw.choices(words, k=10)) + "\n")
            out.write("\n")


def measure(binary, folder):
    """Seconds of user time for each piece of work."""
    def took(*words, stdin=None):
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        done = subprocess.run([str(binary), *words], capture_output=True, text=True, input=stdin)
        if done.returncode:
            sys.exit(f"error: {' '.join(words)}: {done.stderr}")
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before

    with tempfile.TemporaryDirectory(dir=folder) as data:
        took("account", "add", "ann@bench.test", "--password-stdin", "--data", data, stdin="a long password\n")
        return (took("signatures", "add", f"{folder}/db/hashes.hdb", f"{folder}/db/patterns.ndb", "--data", data),
                took("scan", f"{folder}/mixed", "--data", data),
                took("import", "--account", "ann@bench.test", "--data", data, f"{folder}/letters.mbox"),
                took("check-store", "--deep", "--data", data))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target")
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("what", nargs="*")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pillarbox-profiles-") as folder:
        if not options.target:
            subprocess.run([sys.executable, str(ROOT / "benches/scan/generate.py"), folder, "200000", "20000"], check=True)
            write_letters(f"{folder}/letters.mbox")
        print("| build | bytes | signatures | scan | import | check |\n| --- | ---: | ---: | ---: | ---: | ---: |")
        for what in options.what or ["s/fat", "2/fat", "3/fat", "s/thin"]:
            binary = Path(what) if options.measure else build(*what.split("/"), options.target)
            row = [f"{seconds:.2f} s" for seconds in measure(binary, folder)] if not options.target else ["", "", "", ""]
            print(f"| {what} | {binary.stat().st_size:,} | {' | '.join(row)} |", flush=True)


main()
