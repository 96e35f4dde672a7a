#!/usr/bin/env python3
"""Measures a running Pillarbox from outside and prints one line a figure; checks nothing but what must never fail.

    cargo build --release && python3 benches/server.py [PIECE ...]      pieces: idle sessions memory mailbox latency kill

Python's standard library only. Starts `target/release/pillarbox try` (or $PILLARBOX) on folders and ports of its own,
on loopback, and ends it by its process id. Clients use many 127/8 addresses so that per-address limits do not shape
the figures.
"""
import base64, itertools, json, os, random, re, shutil, signal, socket, ssl, statistics, subprocess, sys, tempfile, threading, time
from pathlib import Path

BINARY = os.environ.get("PILLARBOX", str(Path(__file__).resolve().parent.parent / "target/release/pillarbox"))
sources = (f"127.{10 + n % 200}.{n // 200 % 250}.{1 + n % 250}" for n in itertools.count())


class Box:
    """A server of its own; `with Box() as box`."""

    def __init__(self, folder=None, base=None):
        self.made = None if folder else tempfile.mkdtemp(prefix="pillarbox-bench-")
        self.folder, self.base = folder or self.made, base or random.randrange(20, 50) * 1000

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()
        if self.made:
            shutil.rmtree(self.made, ignore_errors=True)

    def start(self):
        log = open(os.path.join(self.folder, "log"), "a")
        self.process = subprocess.Popen([BINARY, "try", "--json", "--allow-clear-auth", "--data", os.path.join(self.folder, "data"), "--ports", str(self.base)],
                                        stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL)
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"the server did not start: {open(log.name).read()}")
        self.said = json.loads(line)
        self.accounts = [(a["address"], a["password"]) for a in self.said["accounts"]]
        self.tls = ssl.create_default_context(cafile=self.said["ca"])
        self.pid = self.said["pid"]

    def stop(self, sign=signal.SIGTERM):
        self.process.send_signal(sign)
        self.process.wait()

    def connect(self, listener, tls=False):
        host, port = self.said["listeners"][listener].rsplit(":", 1)
        s = socket.create_connection((host, int(port)), timeout=120, source_address=(next(sources), 0))
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.tls.wrap_socket(s, server_hostname="localhost") if tls else s

    # -- what the kernel says of the process
    def memory(self):
        """PSS in KiB."""
        return int(re.search(r"^Pss:\s+(\d+)", open(f"/proc/{self.pid}/smaps_rollup").read(), re.M).group(1))

    def threads(self):
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def switches(self):
        n = 0
        for t in os.listdir(f"/proc/{self.pid}/task"):
            n += sum(int(x) for x in re.findall(r"ctxt_switches:\s+(\d+)", open(f"/proc/{self.pid}/task/{t}/status").read()))
        return n

    def cpu(self):
        f = open(f"/proc/{self.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(f[11]) + int(f[12])) / os.sysconf("SC_CLK_TCK")


class Peak(threading.Thread):
    def __init__(self, box):
        super().__init__(daemon=True)
        self.box, self.peak, self.go = box, 0, True

    def run(self):
        while self.go:
            try:
                self.peak = max(self.peak, self.box.memory())
            except OSError:
                return
            time.sleep(0.05)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.go = False
        self.join()


class Line:
    """A line protocol over a socket."""

    def __init__(self, sock):
        self.s, self.f = sock, sock.makefile("rb", buffering=1 << 16)

    def line(self):
        l = self.f.readline()
        if not l:
            raise ConnectionError("closed")
        return l

    def send(self, data):
        self.s.sendall(data)

    def close(self):
        self.f.close()
        self.s.close()


class Smtp(Line):
    def __init__(self, box, tls=False):
        super().__init__(box.connect("smtp"))
        self.reply(b"220")
        self.cmd(b"EHLO bench.test", b"250")

    def reply(self, want):
        while True:
            l = self.line()
            if l[3:4] != b"-":
                break
        if not l.startswith(want):
            raise RuntimeError(l.decode(errors="replace").strip())
        return l

    def cmd(self, data, want):
        self.send(data + b"\r\n")
        return self.reply(want)

    def deliver(self, to, body):
        """`body` is dot-stuffed and ends in CRLF."""
        self.send(b"MAIL FROM:<s@bench.test>\r\nRCPT TO:<%s>\r\nDATA\r\n" % to.encode())
        self.reply(b"250"), self.reply(b"250"), self.reply(b"354")
        self.send(body + b".\r\n" if isinstance(body, bytes) else b"")
        if not isinstance(body, bytes):
            for piece in body:
                self.send(piece)
            self.send(b".\r\n")
        return self.reply(b"250")


class Imap(Line):
    def __init__(self, box, account=0, tls=False):
        super().__init__(box.connect("imaps" if tls else "imap", tls))
        self.line()
        a, p = box.accounts[account]
        self.cmd(f'LOGIN "{a}" "{p}"')

    def cmd(self, text, each=None):
        self.send(b"q " + (text if isinstance(text, bytes) else text.encode()) + b"\r\n")
        got = []
        while True:
            l = self.line()
            if l.startswith(b"q "):
                if not l.startswith(b"q OK"):
                    raise RuntimeError(f"{text!r:.60} -> {l!r}")
                return got
            m = re.search(rb"\{(\d+)\}\r\n$", l)
            if m:
                left = int(m.group(1))
                while left:
                    left -= len(self.f.read(min(left, 1 << 16)))
            if each:
                each(l)
            elif not m:
                got.append(l)


def say(piece, name, value, unit, goal):
    print(f"{piece:9} {name:58} {value:>12} {unit:12} goal {goal}", flush=True)


def letter(n, size=4000):
    rng = random.Random(n)
    head = f"From: <s@bench.test>\r\nTo: <r@bench.test>\r\nSubject: letter {n}\r\nMessage-ID: <{n}.{rng.getrandbits(40):x}@bench.test>\r\nX-Bench-Id: {n}\r\n\r\n"
    body = "".join("".join(rng.choice("abcdefghij klmnop") for _ in range(70)) + "\r\n" for _ in range(max(1, (size - len(head)) // 72)))
    return (head + body).encode()


def idle(_):
    with Box() as box:
        time.sleep(15)
        before = box.switches(), box.cpu()
        time.sleep(20)
        say("idle", "PSS after `try`", round(box.memory() / 1024, 1), "MiB", "<= 12")
        say("idle", "threads", box.threads(), "", "<= 5")
        say("idle", "context switches in 20 s", box.switches() - before[0], "", "0")


def sessions(_, count=500):
    for tls in (True, False):
        with Box() as box:
            Imap(box, 0, tls).close()
            time.sleep(12)
            base = box.memory()
            all_ = []
            for n in range(count):
                c = Imap(box, n % 2, tls)
                c.cmd("SELECT INBOX")
                c.send(b"i IDLE\r\n")
                while not c.line().startswith(b"+"):
                    pass
                all_.append(c)
            time.sleep(12)
            say("sessions", f"PSS of an idle IMAP session, {'TLS' if tls else 'clear'}, over {count}", round((box.memory() - base) / count, 2), "KiB", "<= 16" if tls else "<= 4")
            before = box.switches()
            time.sleep(10)
            say("sessions", f"context switches in 10 s with {count} idle sessions", box.switches() - before, "", "0")
            for c in all_:
                c.close()


def big(n, megabytes=25):
    """A message of so many MB with an incompressible attachment, in pieces."""
    yield letter(n, 600).replace(b"\r\n\r\n", b'\r\nContent-Type: application/octet-stream; name="x"\r\nContent-Transfer-Encoding: base64\r\n\r\n', 1)
    piece = base64.encodebytes(random.Random(n).randbytes(57 * 1000)).replace(b"\n", b"\r\n")
    for _ in range(megabytes * 1_000_000 // len(piece)):
        yield piece


def in_threads(jobs):
    errors = []

    def run(job):
        try:
            job()
        except Exception as e:
            errors.append(repr(e))
    threads = [threading.Thread(target=run, args=(j,)) for j in jobs]
    [t.start() for t in threads]
    [t.join() for t in threads]
    return errors


def memory(_):
    with Box() as box:
        Smtp(box).deliver(box.accounts[0][0], big(0))
        with Peak(box) as peak:
            t = time.time()
            errors = in_threads([lambda n=n: Smtp(box).deliver(box.accounts[n % 2][0], big(n)) for n in range(20)]
                                + [lambda n=n: (lambda c: (c.cmd("SELECT INBOX"), c.cmd("UID FETCH 1:* (UID FLAGS BODYSTRUCTURE BODY.PEEK[])")))(Imap(box, n % 2, n % 4 == 0)) for n in range(50)])
        say("memory", f"peak PSS: 20 senders of 25 MB, 50 fetching ({time.time() - t:.0f} s, {len(errors)} errors)", round(peak.peak / 1024, 1), "MiB", "<= 48")
        for e in errors[:3]:
            print("         ", e)
    for name, body in (("600,000 parts", lambda: itertools.chain([b'Subject: parts\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n'], (b"--b\r\n\r\nx\r\n" * 60000 + b"." * 0 for _ in range(10)), [b"y" * 70 + b"\r\n"] * 200000)),
                       ("8 MB of header lines", lambda: itertools.chain((b"".join(b"X-%d-%d: %s\r\n" % (k, i, b"v" * 60) for i in range(1000)) for k in range(110)), [b"\r\nbody\r\n"] + [b"z" * 70 + b"\r\n"] * 230000))):
        with Box() as box:
            with Peak(box) as peak:
                Smtp(box).deliver(box.accounts[0][0], body())
                c = Imap(box)
                c.cmd("SELECT INBOX")
                c.cmd("FETCH 1:* (ENVELOPE BODYSTRUCTURE BODY.PEEK[HEADER.FIELDS (SUBJECT)] RFC822.SIZE)")
            say("memory", f"peak PSS: 25 MB message of {name}", round(peak.peak / 1024, 1), "MiB", "<= 48")


def mailbox(_, count=100_000):
    with Box() as box:
        c = Imap(box)
        c.cmd("CREATE big")
        t = time.time()
        step = 500
        for first in range(0, count, step):
            out = []
            for n in range(first, first + step):
                m = b"Subject: %d\r\nFrom: a@b\r\n\r\nbody %d\r\n" % (n, n)
                out.append(b"q APPEND big (%s) {%d+}\r\n%s\r\n" % (b"\\Seen" if n % 5 else b"", len(m), m))
            c.send(b"".join(out))
            for _ in range(step):
                l = c.line()
                while not l.startswith(b"q "):
                    l = c.line()
                if not l.startswith(b"q OK"):
                    raise RuntimeError(l)
        say("mailbox", f"APPEND of {count} small messages, one connection", round(count / (time.time() - t)), "a second", "-")
        base = box.memory()
        times = []
        for _ in range(5):
            c.cmd("UNSELECT") if times else None
            t = time.time()
            c.cmd("SELECT big")
            times.append(time.time() - t)
        say("mailbox", f"SELECT of {count} messages", round(statistics.median(times), 4), "s", "< 0.3")
        t = time.time()
        lines = len(c.cmd("FETCH 1:* (UID FLAGS)"))
        say("mailbox", f"FETCH 1:* (UID FLAGS), {lines} answers", round(time.time() - t, 3), "s", "< 1.5")
        for name in ("SEARCH UNSEEN", "SEARCH SUBJECT 99999", "UID SEARCH RETURN (COUNT) BODY 77777", "STORE 1:* +FLAGS.SILENT (\\Flagged)"):
            t = time.time()
            c.cmd(name)
            say("mailbox", name, round(time.time() - t, 3), "s", "-")
        say("mailbox", "PSS gained meanwhile", round((box.memory() - base) / 1024, 1), "MiB", "-")


def latency(_):
    with Box() as box:
        c, s = Imap(box), Smtp(box)
        c.cmd("SELECT INBOX")
        c.send(b"i IDLE\r\n")
        while not c.line().startswith(b"+"):
            pass
        acked, seen = [], []
        for n in range(50):
            at = []
            def listen():
                while b"EXISTS" not in c.line():
                    pass
                at.append(time.time())
            t = threading.Thread(target=listen)
            t.start()
            begin = time.time()
            s.deliver(box.accounts[0][0], letter(n))
            done = time.time()
            t.join()
            acked.append(done - begin)
            seen.append(at[0] - done)
        say("latency", "250 after the start of the transaction, median", round(1000 * statistics.median(acked), 2), "ms", "-")
        say("latency", "EXISTS to an idling client after the 250, worst of 50", round(1000 * max(seen), 2), "ms", "<= 10")


def kill(_, rounds=100):
    folder = tempfile.mkdtemp(prefix="pillarbox-kill-")
    lost = doubled = total = 0
    box = Box(folder)
    numbers = itertools.count()
    everything = set()
    slowest = 0
    for round_ in range(rounds):
        t = time.time()
        box.start()
        slowest = max(slowest, time.time() - t)
        acked, stop = [], threading.Event()

        def load():
            try:
                s = Smtp(box)
                while not stop.is_set():
                    n = next(numbers)
                    s.deliver(box.accounts[n % 2][0], letter(n, random.choice((900, 4000, 20000, 300000))))
                    acked.append(n)
            except (OSError, RuntimeError, ConnectionError):
                pass
        threads = [threading.Thread(target=load) for _ in range(8)]
        [t.start() for t in threads]
        time.sleep(random.uniform(0.15, 0.7))
        box.process.kill()
        box.process.wait()
        stop.set()
        [t.join() for t in threads]
        everything.update(acked)
        total += len(acked)
    box.start()
    found = {}
    for account in (0, 1):
        c = Imap(box, account)
        c.cmd("SELECT INBOX")
        c.send(b"q FETCH 1:* (BODY.PEEK[HEADER.FIELDS (X-Bench-Id)])\r\n")
        while True:
            l = c.line()
            if l.startswith(b"q "):
                break
            m = re.match(rb"X-Bench-Id: (\d+)", l)
            if m:
                found[int(m.group(1))] = found.get(int(m.group(1)), 0) + 1
    lost = sum(1 for n in everything if n not in found)
    doubled = sum(1 for n in found if found[n] > 1)
    box.stop()
    looked = subprocess.run([BINARY, "check-store", "--deep", "--data", os.path.join(folder, "data")],
                            capture_output=True, text=True)
    say("kill", f"SIGKILL under load, {rounds} rounds, {total} acknowledged: lost", lost, "", "0")
    say("kill", "  there more than once", doubled, "", "0")
    say("kill", "  slowest restart", round(slowest, 2), "s", "-")
    say("kill", "  check-store finds nothing", "yes" if looked.returncode == 0 else "NO", "", "yes")
    if lost or doubled or looked.returncode:
        sys.exit(f"mail was lost or doubled, or the store is not whole; see {folder}\n{looked.stdout}{looked.stderr}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    pieces = dict(idle=idle, sessions=sessions, memory=memory, mailbox=mailbox, latency=latency, kill=kill)
    for name in sys.argv[1:] or pieces:
        pieces[name](name)
