#!/usr/bin/env python3
"""A hostile load on a server whose memory is limited as on a board, and what it took.

    python3 board/load.py [--board pi-zero] [--binary FILE] [--sessions N] [--signatures N] [--limit-mib N] [--letters N]

`pillarbox serve --board NAME` runs in a memory cgroup of its own with the board's budget and a tenth more (or
--limit-mib). Its sessions are filled to the last with logged-in IMAP clients (--sessions: that many and no more), then
letters of 25 MB, archives of archives, bombs and packers with large dictionaries come in at as many connections as may
send, while others search the text of all of it. At the end the server must be the one that was started, no process may
have been killed for memory, and the store must be whole. Prints the peaks.

Where no memory cgroup can be written (no cgroups, no rights) it says that kills were NOT CHECKED, and compares the
server's own peak with the limit instead. Python's standard library only; loopback only.
"""
import argparse
import atexit
import base64
import bz2
import io
import itertools
import json
import lzma
import os
import random
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MIB = 1 << 20
LETTER_BYTES = 25 * MIB
ADDRESS, PASSWORD = "ann@load.test", "a long password"
# The most seconds for one answer: on a busy computer client and server both wait for a processor.
PATIENCE = 3000
# Of the signatures this many are patterns; the others are digests.
PATTERNS = 2000
# Clients are many computers: limits for one address are another test's matter.
sources = (f"127.{10 + n % 200}.{n // 200 % 250}.{1 + n % 250}" for n in itertools.count())


class Cage:
    """A memory cgroup below our own, version 1 or 2."""

    def __init__(self, limit):
        self.folder, self.why = None, "this system has no memory cgroups"
        own = {}
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, names, path = line.split(":", 2)
            own.update({name: path for name in names.split(",")})
        for line in Path("/proc/mounts").read_text().splitlines():
            _, place, kind, words, *_ = line.split()
            if kind == "cgroup" and "memory" in words.split(",") and "memory" in own:
                self.files = {"limit": "memory.limit_in_bytes", "peak": "memory.max_usage_in_bytes", "kills": "memory.oom_control"}
                self._make(Path(place + own["memory"]), limit)
            elif kind == "cgroup2" and "memory" in (Path(place) / "cgroup.controllers").read_text().split():
                self.files = {"limit": "memory.max", "peak": "memory.peak", "kills": "memory.events"}
                self._make(Path(place + own.get("", "")), limit)
            if self.folder:
                return

    def _make(self, above, limit):
        folder = above / f"pillarbox-load-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError as error:
            self.why = f"no cgroup can be made: {error}"
            return
        try:
            (folder / self.files["limit"]).write_text(str(limit))
            self.folder = folder
        except OSError as error:
            folder.rmdir()
            self.why = f"a cgroup's memory cannot be limited: {error}"

    def command(self, words):
        """What starts a program inside."""
        if not self.folder:
            return words
        return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.folder / "cgroup.procs"), *words]

    def kills(self):
        found = re.search(r"^oom_kill (\d+)", (self.folder / self.files["kills"]).read_text(), re.M)
        return int(found.group(1)) if found else 0

    def peak(self):
        """Bytes, the pages of files among them, which the kernel takes back as soon as it needs them."""
        path = self.folder / self.files["peak"]
        return int(path.read_text()) if path.exists() else None

    def remove(self):
        if self.folder and self.folder.exists():
            self.folder.rmdir()


class Watch(threading.Thread):
    """The most memory a process has that the kernel cannot take back, by looking often."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.anonymous, self.go = pid, 0, True

    def run(self):
        while self.go:
            try:
                text = Path(f"/proc/{self.pid}/status").read_text()
            except OSError:
                return
            # One that has ended has none.
            if found := re.search(r"RssAnon:\s+(\d+)", text):
                self.anonymous = max(self.anonymous, int(found.group(1)))
            time.sleep(0.02)

    def resident(self):
        return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{self.pid}/status").read_text()).group(1))


def zipped(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return out.getvalue()


def attachments():
    """Names and bytes of what the letters carry: each is made once."""
    draw = random.Random(7)
    noise = draw.randbytes(LETTER_BYTES)
    words = " ".join(draw.randbytes(draw.randint(1, 5)).hex() for _ in range(400_000)).encode()
    bomb = zipped((f"{number}.bin", bytes(20 * MIB)) for number in range(3))
    nested = bomb
    for level in range(20):
        nested = zipped([(f"{level}.zip", nested), ("note.txt", words[:10_000])])
    yield "noise.bin", noise
    yield "many.zip", zipped((f"folder/{number}.txt", words[number * 100:number * 100 + 400]) for number in range(6000))
    yield "nested.zip", nested
    yield "bombs.zip", zipped((f"{number}.zip", bomb) for number in range(20))
    # Whoever unpacks this as it asks for needs 64 MiB for its dictionary alone.
    yield "dictionary.xz", lzma.compress(noise[:MIB] + bytes(8 * MIB), filters=[{"id": lzma.FILTER_LZMA2, "preset": 1, "dict_size": 64 * MIB}])
    yield "blocks.bz2", bz2.compress(words * 2, 9)
    yield "words.txt", words * (LETTER_BYTES // len(words))


def letters():
    made = []
    for name, data in attachments():
        lines = base64.encodebytes(data[:LETTER_BYTES]).replace(b"\n", b"\r\n")
        head = (f"From: <a@far.test>\r\nTo: <{ADDRESS}>\r\nSubject: load {name}\r\nMIME-Version: 1.0\r\n"
                f'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n').encode()
        text = b"the needle in the haystack of words and invoices\r\n" * 2000
        more = f'--b\r\nContent-Type: application/octet-stream; name="{name}"\r\nContent-Transfer-Encoding: base64\r\n'.encode()
        made.append((name, head + text + more + f'Content-Disposition: attachment; filename="{name}"\r\n\r\n'.encode() + lines + b"--b--\r\n.\r\n"))
    return made


class Client:
    """A line protocol."""

    def __init__(self, port, context=None):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE, source_address=(next(sources), 0))
        if context:
            self.sock = context.wrap_socket(self.sock, server_hostname="localhost")
        self.file = self.sock.makefile("rb")

    def line(self):
        line = self.file.readline()
        if not line:
            raise ConnectionError("closed")
        return line

    def smtp(self, data=None):
        if data:
            self.sock.sendall(data)
        while (line := self.line())[3:4] == b"-":
            pass
        return line.decode().strip()

    def imap(self, command):
        """Reads to the end of the answer and keeps none of it."""
        self.sock.sendall(b"a " + command + b"\r\n")
        while not (line := self.line()).startswith(b"a "):
            if found := re.search(rb"\{(\d+)\}\r\n$", line):
                left = int(found.group(1))
                while left:
                    left -= len(self.file.read(min(left, 1 << 16)))
        return line

    def login(self):
        self.line()
        said = self.imap(f'LOGIN {ADDRESS} "{PASSWORD}"'.encode())
        if not said.startswith(b"a OK"):
            raise RuntimeError(said.decode().strip())
        self.imap(b"SELECT INBOX")
        return self


def ports():
    """Three free ones."""
    sockets = [socket.socket() for _ in range(3)]
    for sock in sockets:
        sock.bind(("127.0.0.1", 0))
    found = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--board", default="pi-zero")
    parser.add_argument("--binary", default=str(ROOT / "target/release/pillarbox"))
    parser.add_argument("--sessions", type=int, help="connections at one time instead of the board's")
    parser.add_argument("--signatures", type=int, default=0, help="how many made-up signatures there are")
    parser.add_argument("--limit-mib", type=int, help="instead of the board's budget and a tenth")
    parser.add_argument("--letters", type=int, default=28)
    options = parser.parse_args()

    def run(*words, **more):
        done = subprocess.run([options.binary, *words], capture_output=True, text=True, **more)
        if done.returncode:
            sys.exit(f"error: {' '.join(words)}: {done.stderr}")
        return done.stdout

    board = json.loads(run("board", "--board", options.board, "--json"))
    number = lambda word: next(int(found.group(1)) for part in board["memory"]["parts"]
                               if (found := re.match(rf"(\d+) {word}", part["name"])))
    sessions = options.sessions or number("sessions")
    incoming = min(number("incoming messages"), sessions // 3)
    limit = options.limit_mib * MIB if options.limit_mib else board["budget_kib"] * 1024 * 11 // 10
    with tempfile.TemporaryDirectory(prefix="pillarbox-load-") as folder:
        data = f"{folder}/data"
        os.mkdir(data)
        run("account", "add", ADDRESS, "--password-stdin", "--data", data, input=PASSWORD + "\n")
        if options.signatures:
            subprocess.run([sys.executable, str(ROOT / "benches/scan/generate.py"), f"{folder}/set",
                            str(options.signatures), str(PATTERNS)], check=True)
            run("signatures", "add", f"{folder}/set/db/hashes.hdb", f"{folder}/set/db/patterns.ndb", "--data", data)
        smtp, imaps, submissions = ports()
        extra = f"sessions-max = {options.sessions}\n" if options.sessions else ""
        Path(f"{folder}/config.toml").write_text(
            f'hostname = "localhost"\ndata = "{data}"\nallow-root = true\n[listen]\nsmtp = ["127.0.0.1:{smtp}"]\n'
            f'imaps = ["127.0.0.1:{imaps}"]\nsubmission = []\nsubmissions = ["127.0.0.1:{submissions}"]\nimap = []\n'
            f'pop3 = []\npop3s = []\n[net]\n{extra}[senders]\naddress-messages-per-hour = 0\nnetwork-messages-per-hour = 0\n'
            f'[spam]\nenabled = true\n[scan]\nenabled = true\n[login]\nlockout-loopback = false\n')
        cage = Cage(limit)
        print(f"{options.board}: budget {board['budget_kib'] >> 10} MiB, limit {limit / MIB:.1f} MiB, {sessions} sessions, "
              f"{incoming} senders, {options.signatures} signatures; load average {os.getloadavg()[0]:.1f}", flush=True)
        log = open(f"{folder}/log", "wb")
        words = [options.binary, "serve", "--config", f"{folder}/config.toml", "--board", options.board]
        server = subprocess.Popen(cage.command(words), stdout=log, stderr=log, stdin=subprocess.DEVNULL)

        # However this ends, the server does not outlive it.
        atexit.register(cage.remove)
        atexit.register(server.wait)
        atexit.register(server.kill)

        def give_up(text):
            sys.exit(f"FAILED: {text}\n{Path(log.name).read_text(errors='replace')[-3000:]}")

        signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
        end = time.monotonic() + PATIENCE
        while True:
            try:
                Client(smtp).sock.close()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > end:
                    give_up("the server does not start")
                time.sleep(0.1)
        watch = Watch(server.pid)
        watch.start()
        time.sleep(2)
        print(f"idle: {watch.anonymous} KiB of its own, resident {watch.resident()} KiB", flush=True)
        context = ssl.create_default_context(cafile=f"{data}/tls/ca.crt")
        try:
            load(server, watch, context, (smtp, imaps), sessions, incoming, options.letters)
        except Exception as error:
            give_up(f"{type(error).__name__}: {error} (the server's own peak so far: {watch.anonymous} KiB)")
        if server.poll() is not None:
            give_up(f"the server ended with {server.returncode}")
        resident, kills = watch.resident(), cage.kills() if cage.folder else None
        watch.go = False
        print(f"peak: {watch.anonymous} KiB of its own, resident {resident} KiB (with its code)"
              + (f", cgroup {cage.peak() >> 10} KiB (with pages of files)" if cage.folder and cage.peak() else ""))
        server.send_signal(signal.SIGTERM)
        if server.wait(PATIENCE) != 0:
            give_up(f"the server ended with {server.returncode}")
        if "all is well" not in run("check-store", "--deep", "--data", data):
            sys.exit("FAILED: the store is not whole")
        if kills is None:
            print(f"kills: NOT CHECKED, {cage.why}")
        elif kills:
            sys.exit(f"FAILED: {kills} kills for memory")
        if watch.anonymous * 1024 > limit:
            sys.exit("FAILED: the server held more than the limit")
        print("held: no kill, the same server to the end, the store whole" if kills == 0 else "held below the limit, the store whole")


def load(server, watch, context, at, sessions, incoming, count):
    """Fills the sessions, then sends and searches."""
    smtp, imaps = at
    searching = 3
    idle = [Client(imaps, context).login() for _ in range(sessions - incoming - searching)]
    print(f"{len(idle)} sessions logged in: {watch.anonymous} KiB of its own", flush=True)
    kinds, queue, said, done = letters(), iter(range(count)), {}, threading.Event()
    lock, wrong, ready = threading.Lock(), [], threading.Barrier(incoming + searching + 1, timeout=PATIENCE)

    def send():
        client = Client(smtp)
        client.smtp()
        client.smtp(b"EHLO far.test\r\n")
        ready.wait()
        while True:
            with lock:
                number = next(queue, None)
            if number is None or server.poll() is not None:
                return
            name, text = kinds[number % len(kinds)]
            client.smtp(b"MAIL FROM:<a@far.test>\r\n")
            client.smtp(f"RCPT TO:<{ADDRESS}>\r\n".encode())
            answer = client.smtp(b"DATA\r\n")
            if answer.startswith("354"):
                answer = client.smtp(text)
            with lock:
                key = (name, answer[:9])
                said[key] = said.get(key, 0) + 1

    def search():
        client = Client(imaps, context).login()
        ready.wait()
        while not done.is_set():
            client.imap(b'SEARCH TEXT "needle that is nowhere"')
            client.imap(b"FETCH 1:3 (BODY.PEEK[] ENVELOPE BODYSTRUCTURE)")
            client.imap(b"NOOP")

    def guarded(what):
        try:
            what()
        except Exception as error:
            wrong.append(f"{what.__name__}: {type(error).__name__}: {error}")

    at = time.monotonic()
    senders = [threading.Thread(target=guarded, args=(send,), daemon=True) for _ in range(incoming)]
    searchers = [threading.Thread(target=guarded, args=(search,), daemon=True) for _ in range(searching)]
    for thread in (*searchers, *senders):
        thread.start()
    # When the last of these is there, all sessions are taken.
    ready.wait()
    try:
        more = Client(smtp).smtp()
    except OSError as error:
        more = f"closed ({error})"
    print(f"one connection more than {sessions}: {more}", flush=True)
    for thread in senders:
        thread.join()
    done.set()
    for thread in searchers:
        thread.join()
    for (name, answer), times in sorted(said.items()):
        print(f"  {times} x {name}: {answer}")
    print(f"{sum(said.values())} letters in {time.monotonic() - at:.0f} s", flush=True)
    if wrong:
        raise RuntimeError("; ".join(wrong))
    # Those who were there all the time still are.
    for client in idle:
        if not client.imap(b"NOOP").startswith(b"a OK"):
            raise RuntimeError("an idle session was lost")


main()
