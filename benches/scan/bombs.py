#!/usr/bin/env python3
"""Scans the bombs of tests/scan_bombs.rs with Pillarbox and with clamscan, and prints what each takes.

    PILLARBOX_BOMBS=FOLDER cargo test --test scan_bombs && benches/scan/bombs.py FOLDER

Each is scanned by a process of its own: work (CPU) in seconds, the largest resident set, and the verdict. The
program itself is 10 MiB of that.
"""
import os, shutil, subprocess, sys, tempfile
from pathlib import Path

BINARY = os.environ.get("PILLARBOX", str(Path(__file__).resolve().parents[2] / "target/release/pillarbox"))


def measured(command):
    """CPU, largest RSS in MiB, and what was told of the file."""
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)
        _, _, used = os.wait4(process.pid, 0)
        out.seek(0)
        told = out.readline().strip().rsplit(": ", 1)[-1] or "nothing told"
    return f"{used.ru_utime + used.ru_stime:.2f} s | {used.ru_maxrss / 1024:.1f} MiB | {told.removesuffix(' FOUND')}"


folder = Path(sys.argv[1])
db = Path(tempfile.mkdtemp()) / "none.ndb"
db.write_text("Nothing:0:*:0123456789abcdef0123456789abcdef\n")
clamscan = shutil.which("clamscan")
print("| bomb | bytes | work | largest RSS | verdict |" + (" clamscan: work | largest RSS | verdict |" if clamscan else ""))
print("| --- | ---: | ---: | ---: | --- |" + (" ---: | ---: | --- |" if clamscan else ""))
for bomb in sorted(folder.iterdir()):
    ours = measured([BINARY, "scan", "--db", str(db), str(bomb)])
    theirs = f" {measured([clamscan, '--alert-exceeds-max=yes', f'--database={db}', '--no-summary', str(bomb)])} |" if clamscan else ""
    print(f"| {bomb.name} | {bomb.stat().st_size:,} | {ours} |{theirs}", flush=True)
shutil.rmtree(db.parent)
