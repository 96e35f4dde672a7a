#!/usr/bin/env python3
"""Scans with Pillarbox and with ClamAV's clamd, on the same signatures and the same files, and prints a table.

    benches/scan/run.py [--hashes N] [--patterns N] [--keep FOLDER] [--board NAME] [--only pillarbox|clamd] [--rounds N]

Both are asked over their socket, in clamd's protocol, by the same client on one connection. Takes
`target/release/pillarbox` (or $PILLARBOX) and Debian's `clamav-daemon`; needs no official database and starts
everything in a folder of its own, as whoever runs it (clamd refuses root only if its config says so). Figures of
memory are the kernel's: PSS with what of it is not of a file, and the largest resident set. Times of work are
CPU, which a busy machine changes little; elapsed times are of an idle one only if it was.
"""
import argparse, os, re, resource, shutil, signal, socket, subprocess, sys, tempfile, time
from pathlib import Path

HERE = Path(__file__).resolve().parent
BINARY = os.environ.get("PILLARBOX", str(HERE.parent.parent / "target/release/pillarbox"))
CONFIG = """data = "{folder}/data"
allow-root = true
[listen]
smtp = ["127.0.0.1:0"]
submission = []
submissions = []
imap = ["127.0.0.1:0"]
imaps = []
pop3 = []
pop3s = []
[scan]
clamd-socket = "{folder}/pillarbox.sock"
unpacked-max-bytes = 402653184
"""
# The cache of clean files is off: a second round would otherwise scan nothing.
CLAMD = """LocalSocket {folder}/clamd.sock
DatabaseDirectory {folder}/db
Foreground yes
User root
LogFile {folder}/clamd.log
TemporaryDirectory {folder}
ConcurrentDatabaseReload no
DisableCache yes
Bytecode no
"""


def run(name, command):
    """Runs a program to its end: elapsed, CPU, largest resident set in MiB."""
    start, process = time.monotonic(), subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed: {status}")
    return time.monotonic() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


class Server:
    """A scanner behind a socket."""

    def __init__(self, command, path, log):
        self.path, self.start = path, time.monotonic()
        self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.pid, self.socket = self.process.pid, None
        while not self.socket:
            if self.process.poll() is not None:
                sys.exit(f"{command} ended; see {log.name}")
            try:
                self.socket = socket.socket(socket.AF_UNIX)
                self.socket.connect(path)
            except OSError:
                self.socket = None
                time.sleep(0.002)
        self.socket.sendall(b"zIDSESSION\0")
        self.rest = b""
        self.ask("PING")
        self.ready = time.monotonic() - self.start

    def ask(self, command):
        self.socket.sendall(b"z" + command.encode() + b"\0")
        while b"\0" not in self.rest:
            more = self.socket.recv(65536)
            if not more:
                sys.exit(f"{self.path}: the connection ended at {command}")
            self.rest += more
        line, self.rest = self.rest.split(b"\0", 1)
        return line.decode(errors="replace").split(": ", 1)[1]

    def scan(self, folder, step=1):
        """What was found in each file of a folder, or in each so-manieth."""
        found = {}
        for name in sorted(os.listdir(folder))[::step]:
            answer = self.ask(f"SCAN {folder}/{name}").rsplit(": ", 1)[-1]
            found[name] = answer.removesuffix(" FOUND").removesuffix(".UNOFFICIAL") if answer.endswith(" FOUND") else answer
        return found

    def cpu(self):
        fields = open(f"/proc/{self.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self):
        """PSS, of it not of a file, largest resident set; MiB."""
        rollup = open(f"/proc/{self.pid}/smaps_rollup").read()
        field = lambda name, text: int(re.search(rf"^{name}:\s+(\d+)", text, re.M).group(1)) / 1024
        return field("Pss", rollup), field("Pss_Anon", rollup), field("VmHWM", open(f"/proc/{self.pid}/status").read())

    def stop(self):
        self.socket.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def measure(name, server, folder, rounds, step=1):
    """Figures of one server, as rows, and what it found."""
    rows = {}
    (folder / "empty").mkdir(exist_ok=True)
    (folder / "empty" / "nothing").write_bytes(b"nothing")
    start = time.monotonic()
    server.scan(folder / "empty")
    rows["ready to scan after its start"] = f"{server.ready + time.monotonic() - start:.2f} s"
    rows["work until then (CPU)"] = f"{server.cpu():.2f} s"
    pss, own, _ = server.memory()
    rows["memory then (PSS; not of a file)"] = f"{pss:.1f} MiB; {own:.1f} MiB"
    size = sum(path.stat().st_size for path in (folder / "mixed").iterdir()) / 1e6
    best, best_time, mixed = None, None, {}
    for _ in range(rounds):
        start, before = time.monotonic(), server.cpu()
        mixed = server.scan(folder / "mixed")
        work, elapsed = server.cpu() - before, time.monotonic() - start
        best, best_time = min(best or work, work), min(best_time or elapsed, elapsed)
    rows[f"{size:.0f} MB of mixed files: work (CPU), best of {rounds}"] = f"{best:.2f} s, {size / best:.0f} MB/s"
    rows["the same, elapsed"] = f"{best_time:.2f} s"
    before = server.cpu()
    planted = server.scan(folder / "planted", step)
    rows["planted files: work (CPU) for a thousand"] = f"{1000 * (server.cpu() - before) / len(planted):.2f} s"
    held = server.scan(folder / "containers")
    pss, own, peak = server.memory()
    rows["memory after it (PSS; not of a file; largest RSS)"] = f"{pss:.1f} MiB; {own:.1f} MiB; {peak:.1f} MiB"
    wrong = [file for file, found in mixed.items() if found != "OK"]
    rows["mixed files in which something was found"] = str(len(wrong))
    wanted = dict(line.split() for line in open(folder / "planted.txt"))
    missed = [file for file in planted if planted[file] != wanted[file]]
    rows["planted signatures found by their name"] = f"{len(planted) - len(missed)} of {len(planted)}"
    if missed:
        print(f"{name} missed: " + ", ".join(f"{file} ({wanted[file]}: {planted[file]})" for file in missed[:20]), file=sys.stderr)
    rows["containers with EICAR in which it was found"] = f"{sum(found == 'Bench.Eicar' for found in held.values())} of {len(held)}"
    return rows, {"mixed": mixed, "planted": planted, "containers": held}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--hashes", type=int, default=1_000_000)
    arguments.add_argument("--patterns", type=int, default=20_000)
    arguments.add_argument("--keep", help="the folder to work in; what is generated there is used again")
    arguments.add_argument("--board", default="pi-zero-2w", help="whose memory budget Pillarbox has")
    arguments.add_argument("--only", choices=["pillarbox", "clamd"])
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--step", type=int, default=1, help="scan every so-manieth planted file only")
    chosen = arguments.parse_args()
    folder = Path(chosen.keep or tempfile.mkdtemp(prefix="pillarbox-scan-"))
    if not (folder / "planted.txt").exists():
        subprocess.run([sys.executable, HERE / "generate.py", folder, str(chosen.hashes), str(chosen.patterns)], check=True)
    rows, found = {}, {}
    if chosen.only != "clamd":
        shutil.rmtree(folder / "data", ignore_errors=True)
        (folder / "config.toml").write_text(CONFIG.format(folder=folder))
        command = [BINARY, "serve", "--config", str(folder / "config.toml"), "--board", chosen.board]
        with open(folder / "pillarbox.log", "w") as log:
            server = Server(command, f"{folder}/pillarbox.sock", log)
            server.ask("SCAN /dev/null")
            bare = server.memory()
            server.stop()
            files = sorted(str(path) for path in (folder / "db").iterdir())
            elapsed, work, peak = run("compile", [BINARY, "signatures", "add", *files, "--data", str(folder / "data")])
            server = Server(command, f"{folder}/pillarbox.sock", log)
            mine, found["pillarbox"] = measure("pillarbox", server, folder, chosen.rounds, chosen.step)
            server.stop()
        set_size = (folder / "data" / "signatures.set").stat().st_size / (1 << 20)
        rows["pillarbox"] = {
            "compiling: work (CPU); elapsed; largest RSS": f"{work:.1f} s; {elapsed:.1f} s; {peak:.1f} MiB",
            "the compiled set on the disk": f"{set_size:.0f} MiB",
            "without signatures (PSS; not of a file)": f"{bare[0]:.1f} MiB; {bare[1]:.1f} MiB",
            **mine,
        }
    if chosen.only != "pillarbox" and shutil.which("clamd"):
        (folder / "clamd.conf").write_text(CLAMD.format(folder=folder))
        with open(folder / "clamd.out", "w") as log:
            server = Server(["clamd", "-c", str(folder / "clamd.conf")], f"{folder}/clamd.sock", log)
            rows["clamd"], found["clamd"] = measure("clamd", server, folder, chosen.rounds, chosen.step)
            server.stop()
    print(f"| {chosen.hashes:,} digests, {chosen.patterns:,} patterns | " + " | ".join(rows) + " |")
    print("| --- |" + " ---: |" * len(rows))
    for row in dict.fromkeys(row for column in rows.values() for row in column):
        print(f"| {row} | " + " | ".join(column.get(row, "") for column in rows.values()) + " |")
    if len(found) == 2:
        print("\nWhere they differ:")
        for kind in found["clamd"]:
            for file, theirs in found["clamd"][kind].items():
                if (ours := found["pillarbox"][kind][file]) != theirs:
                    print(f"  {kind}/{file}: pillarbox {ours}, clamd {theirs}")
    if not chosen.keep:
        shutil.rmtree(folder)


main()
