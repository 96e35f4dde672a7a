#!/usr/bin/env python3
"""What board/qemu-user.sh checks of one program: python3 board/qemu_user.py PROGRAM PROGRAM-IN-2038"""
import datetime
import json
import os
import random
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests/clients"))
from journey import Box  # noqa: E402

PROGRAM, IN_2038 = sys.argv[1:3]
# Two days after 32 bits of seconds are full.
LATE = int(datetime.datetime(2038, 1, 21, tzinfo=datetime.timezone.utc).timestamp())


def free_base():
    """Ports are counted from here: one where those of all services are free."""
    while True:
        base = random.randrange(20, 60) * 1000
        try:
            for port in (25, 110, 143, 465, 587, 993, 995):
                with socket.socket() as sock:
                    sock.bind(("127.0.0.1", base + port))
            return base
        except OSError:
            continue


def run(*words, **more):
    done = subprocess.run([PROGRAM, *words], capture_output=True, text=True, timeout=300, **more)
    if done.returncode:
        sys.exit(f"error: {' '.join(words)} ended with {done.returncode}: {done.stderr}")
    return done.stdout


class Server:
    """`pillarbox try` in a folder of its own."""

    def __init__(self, folder, base, program=PROGRAM):
        self.folder, self.base, self.program = folder, base, program

    def __enter__(self):
        self.log = open(f"{self.folder}.log", "w")
        words = [self.program, "try", "--json", "--data", self.folder, "--ports", str(self.base)]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=self.log, stdin=subprocess.DEVNULL)
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"error: no server: {open(f'{self.folder}.log').read()}")
        said = json.loads(line)
        ports = {name: int(at.rsplit(":", 1)[1]) for name, at in said["listeners"].items()}
        account = said["accounts"][0]
        self.box = Box(ports, said["ca"], account["address"], account["password"])
        return self.box

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(60) != 0:
            sys.exit(f"error: the server did not end well: {open(f'{self.folder}.log').read()}")


def main():
    print(run("version").strip())
    board = json.loads(run("board", "--json"))
    assert board["sum_kib"] <= board["budget_kib"], board
    with tempfile.TemporaryDirectory() as folder:
        data = f"{folder}/data"
        with Server(data, free_base()) as box:
            box.journey()
            box.journey()
        assert run("check-store", "--deep", "--data", data).endswith("all is well\n")
        print("journey over TLS: submitted, read by IMAP and POP3, store whole")

        # A letter that is dated after 2038 goes through an mbox file and comes back with its date.
        address = box.address
        mbox = Path(folder) / "late.mbox"
        late = datetime.datetime.fromtimestamp(LATE, datetime.timezone.utc)
        mbox.write_text(f"From x {late:%a %b %d %H:%M:%S %Y}\nFrom: <a@x.test>\nSubject: late\nDate: {late:%a, %d %b %Y %H:%M:%S +0000}\n\nlate\n\n")
        run("import", "--account", address, "--data", data, str(mbox))
        with Server(data, free_base()) as box:
            dates = box.dates()
            assert any(re.search(r'"21-Jan-2038 00:00:00 \+0000"', date) for date in dates), dates
        print("a date after 2038 is kept:", [date for date in dates if "2038" in date][0])
        # Times of files beyond 32 bits: the store's own and what it compares them with.
        for path in Path(data).rglob("*"):
            if path.is_file() and path.suffix in (".redb", ".journal", ".crt", ".key"):
                os.utime(path, (LATE, LATE))
        with Server(data, free_base()) as box:
            box.journey()
        assert run("check-store", "--deep", "--data", data).endswith("all is well\n")
        print("files dated after 2038: opened, journey, store whole")

        # A box that is still there in 2038: the system's clock has more than 32 bits of seconds.
        with Server(data, free_base(), IN_2038) as box:
            # For the clients' clock the new certificate is not valid yet.
            box.tls.check_hostname, box.tls.verify_mode = False, ssl.CERT_NONE
            box.journey()
            dates = box.dates()
            assert any("-Feb-2038 " in date for date in dates), dates
        assert run("check-store", "--deep", "--data", data).endswith("all is well\n")
        print("a clock after 2038: journey, dated by it, store whole")


main()
