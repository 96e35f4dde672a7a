#!/usr/bin/env python3
"""Measures Pillarbox and Dovecot over IMAP on the same messages in one run and prints their ratios.

    cargo build --release && python3 benches/imap_peers.py [MESSAGES [MAILDIR-OR-SDBOX]]     10000 messages, maildir

Python's standard library, and Debian's dovecot-imapd. Both servers run on folders and ports of their own, on
loopback, and are ended by their process ids. Each operation is done in turn on the one and the other, three times;
what counts is the best of each, and a ratio below 1 says that Pillarbox was faster. CPU is that of the server's
processes. As root, because Dovecot wants it.
"""
import os, random, re, shutil, signal, socket, subprocess, sys, tempfile, time
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
BINARY = os.environ.get("PILLARBOX", str(HERE / "target/release/pillarbox"))
COUNT = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
FORMAT = sys.argv[2] if len(sys.argv) > 2 else "maildir"
THUNDERBIRD = ("UID FETCH 1:* (UID RFC822.SIZE FLAGS BODY.PEEK[HEADER.FIELDS (From To Cc Bcc Subject Date Message-ID Priority "
               "X-Priority References Newsgroups In-Reply-To Content-Type Reply-To)])")
WORDS = "the of mail server letter garden winter paper harbour river signal copper lantern market window table".split()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def letter(n):
    """A message like common mail: a long header, text of some KiB, every tenth with an attachment."""
    rng = random.Random(n)
    text = lambda size: "\r\n".join(" ".join(rng.choice(WORDS) for _ in range(11)) for _ in range(size // 70))
    head = "".join(f"Received: from relay{k}.example.org ([192.0.2.{k}]) by mx.example.net with ESMTPS id {rng.getrandbits(64):x};\r\n"
                   f"\tMon, 2 Feb 2026 10:{n % 60:02}:{k:02} +0000\r\n" for k in range(4))
    head += (f"DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=one; h=from:to:subject;\r\n\tbh={rng.getrandbits(256):064x};\r\n\tb={rng.getrandbits(1024):0256x}\r\n"
             f"From: Person {n % 97} <p{n % 97}@example.org>\r\nTo: Ann <ann@example.net>\r\nSubject: {rng.choice(WORDS)} {rng.choice(WORDS)} {n}\r\n"
             f"Date: Mon, 2 Feb 2026 10:{n % 60:02}:00 +0000\r\nMessage-ID: <{n}.{rng.getrandbits(40):x}@example.org>\r\n")
    if n % 5:
        head += f"References: <{n - 1}.x@example.org>\r\n"
    if n % 10:
        return (head + "Content-Type: text/plain; charset=utf-8\r\n\r\n" + text(rng.choice([600, 1500, 3000, 9000])) + f"\r\nrare{n}\r\n").encode()
    blob = "\r\n".join(f"{rng.getrandbits(432):072x}" for _ in range(700))
    return (head + 'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="cut"\r\n\r\n--cut\r\nContent-Type: text/plain\r\n\r\n'
            + text(1500) + "\r\n--cut\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n" + blob + "\r\n--cut--\r\n").encode()


class Imap:
    def __init__(self, port, user, password):
        self.s = socket.create_connection(("127.0.0.1", port), timeout=300)
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.n = 0
        self.rest = b""
        self.until(b"\r\n")
        self.cmd(f"LOGIN {user} {password}")

    def until(self, end):
        while end not in self.rest:
            self.rest += self.s.recv(1 << 20)
        line, self.rest = self.rest.split(end, 1)
        return line

    def cmd(self, line, data=b""):
        """One command; its whole answer. Literals need no reading of their own: the tag is unlike any mail."""
        self.n += 1
        tag = f"zq{self.n:06}x".encode()
        self.s.sendall(tag + b" " + line.encode() + data + b"\r\n")
        parts, size, tail = [self.rest], len(self.rest), self.rest[-4096:]
        while True:
            at = tail.rfind(b"\r\n" + tag + b" ")
            if at < 0 and tail.startswith(tag + b" ") and size == len(tail):
                at = 0
            if at >= 0 and tail.endswith(b"\r\n"):
                break
            piece = self.s.recv(1 << 20)
            if not piece:
                raise SystemExit(f"{line[:60]}: the server hung up")
            parts.append(piece)
            size += len(piece)
            tail = (tail + piece)[-4096:]
        self.rest = b""
        answer = b"".join(parts)
        if b" OK" not in answer[-4096:]:
            raise SystemExit(f"{line[:60]}: {answer[-200:]!r}")
        return answer


def children(pid):
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            found += [int(child) for child in task.read_text().split()]
    return found


class Server:
    def cpu(self):
        ticks = 0
        for pid in children(self.process.pid):
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                ticks += sum(int(field) for field in fields[11:15])
            except OSError:
                pass
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory(self):
        """PSS of all processes, in KiB."""
        sizes = (re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M) for pid in children(self.process.pid))
        return sum(int(size.group(1)) for size in sizes)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)


class Pillarbox(Server):
    name = "pillarbox"

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="imap-peers-")
        self.port = free_port()
        config = Path(self.folder, "pillarbox.toml")
        config.write_text(f'data = "{self.folder}/data"\nallow-root = true\nauth-in-clear-on-loopback = true\n[store]\nallow-ram = true\n[net]\nsessions-max = 4000\n'
                          f'sessions-per-address-max = 4000\n[listen]\nsmtp = []\nsubmission = []\nsubmissions = []\nimaps = []\npop3 = []\npop3s = []\nimap = ["127.0.0.1:{self.port}"]\n')
        os.mkdir(f"{self.folder}/data")
        subprocess.run([BINARY, "account", "add", "ann@bench.test", "--password-stdin", "--data", f"{self.folder}/data"], input=b"secret", check=True, stdout=subprocess.DEVNULL)
        self.process = subprocess.Popen([BINARY, "serve", "--config", str(config)], stdout=subprocess.DEVNULL, stderr=open(f"{self.folder}/log", "w"))
        self.login = ("ann@bench.test", "secret")


class Dovecot(Server):
    name = "dovecot"

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="imap-peers-")
        os.chmod(self.folder, 0o755)
        self.port = free_port()
        os.mkdir(f"{self.folder}/mail")
        os.chown(f"{self.folder}/mail", 5600, 5600)
        config = Path(self.folder, "dovecot.conf")
        config.write_text(f"""base_dir = {self.folder}/run
state_dir = {self.folder}/state
log_path = {self.folder}/log
protocols = imap
listen = 127.0.0.1
mail_location = {FORMAT}:{self.folder}/mail/%u
mail_uid = 5600
mail_gid = 5600
first_valid_uid = 1
ssl = no
disable_plaintext_auth = no
mail_max_userip_connections = 4000
default_process_limit = 1200
default_client_limit = 4000
namespace inbox {{
  inbox = yes
  separator = /
  mailbox Trash {{
    auto = create
  }}
}}
passdb {{
  driver = static
  args = password=secret
}}
userdb {{
  driver = static
  args = uid=5600 gid=5600 home={self.folder}/mail/%u
}}
service imap-login {{
  inet_listener imap {{
    port = {self.port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
""")
        self.process = subprocess.Popen(["dovecot", "-F", "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.login = ("ann", "secret")


def connected(server):
    for _ in range(200):
        try:
            return Imap(server.port, *server.login)
        except (ConnectionError, OSError):
            time.sleep(0.05)
    raise SystemExit(f"{server.name} does not start: {Path(server.folder, 'log').read_text()[-500:]}")


def fill(imap, letters):
    for n, text in enumerate(letters):
        imap.cmd(f"APPEND INBOX {{{len(text)}+}}", b"\r\n" + text)


def uids(imap):
    return imap.cmd("UID SEARCH ALL").split(b"SEARCH")[1].split(b"\r\n")[0].split()


def last_thousand(imap):
    return f"{max(1, len(uids(imap)) - 999)}:*"


OPERATIONS = [
    ("SELECT", lambda i: i.cmd("SELECT INBOX")),
    ("flags of all", lambda i: i.cmd("FETCH 1:* (UID FLAGS)")),
    ("envelopes of 200", lambda i: i.cmd("FETCH 1:200 (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE)")),
    ("headers of all, as Thunderbird", lambda i: i.cmd(THUNDERBIRD)),
    ("200 bodies", lambda i: i.cmd("FETCH 1:200 BODY.PEEK[]")),
    ("all bodies", lambda i: i.cmd("FETCH 1:* BODY.PEEK[]")),
    ("SEARCH SUBJECT", lambda i: i.cmd("UID SEARCH SUBJECT harbour")),
    ("SEARCH BODY", lambda i: i.cmd(f"UID SEARCH BODY rare{COUNT // 2 + 1}")),
    ("SORT by date, subject", lambda i: i.cmd("UID SORT (REVERSE DATE SUBJECT) UTF-8 ALL")),
    ("THREAD by references", lambda i: i.cmd("UID THREAD REFERENCES UTF-8 ALL")),
    ("STORE on all", lambda i: i.cmd("STORE 1:* +FLAGS.SILENT (\\Flagged)")),
    ("and back", lambda i: i.cmd("STORE 1:* -FLAGS.SILENT (\\Flagged)")),
]


def timed(server, work):
    cpu, start = server.cpu(), time.perf_counter()
    answer = work()
    return time.perf_counter() - start, server.cpu() - cpu, answer


def resync(server, imap):
    """A client that was away comes back: what it must know is in the answer to SELECT."""
    state = imap.cmd("SELECT INBOX (CONDSTORE)").decode("latin-1")
    valid, modseq = (re.search(rf"\[{code} (\d+)\]", state).group(1) for code in ("UIDVALIDITY", "HIGHESTMODSEQ"))
    imap.cmd("STORE 1:100 +FLAGS.SILENT (\\Answered)")
    other = Imap(server.port, *server.login)
    other.cmd("ENABLE QRESYNC")
    outcome = timed(server, lambda: other.cmd(f"SELECT INBOX (QRESYNC ({valid} {modseq}))"))
    imap.cmd("STORE 1:100 -FLAGS.SILENT (\\Answered)")
    return outcome


def main():
    servers = [Pillarbox(), Dovecot()]
    try:
        sessions = [connected(server) for server in servers]
        letters = [letter(n) for n in range(COUNT)]
        for server, imap in zip(servers, sessions):
            seconds, cpu, _ = timed(server, lambda: fill(imap, letters))
            print(f"{server.name}: {COUNT} messages, {sum(map(len, letters)) >> 20} MiB, appended in {seconds:.1f} s")
            imap.cmd("SELECT INBOX")
        print(f"{'':32} {'pillarbox':>18} {'dovecot ' + FORMAT:>18} {'time':>6} {'CPU':>6}")
        best = {}
        for name, work in OPERATIONS:
            for _ in range(3):
                for server, imap in zip(servers, sessions):
                    seconds, cpu, _ = timed(server, lambda: work(imap))
                    known = best.get((name, server.name), (1e9, 1e9))
                    best[name, server.name] = (min(seconds, known[0]), min(cpu, known[1]))
            show(name, best)
        for server, imap in zip(servers, sessions):
            best["QRESYNC", server.name] = min(resync(server, imap)[:2] for _ in range(3))
        show("QRESYNC", best)
        for server, imap in zip(servers, sessions):
            which = last_thousand(imap)
            imap.cmd("SELECT INBOX")
            best["MOVE 1,000", server.name] = timed(server, lambda: imap.cmd(f"MOVE {which} Trash"))[:2]
            imap.cmd("STORE 1:1000 +FLAGS.SILENT (\\Deleted)")
            best["EXPUNGE 1,000", server.name] = timed(server, lambda: imap.cmd("EXPUNGE"))[:2]
        show("MOVE 1,000", best)
        show("EXPUNGE 1,000", best)
        for server in servers:
            before = server.memory()
            idlers = [Imap(server.port, *server.login) for _ in range(500)]
            for idler in idlers:
                idler.cmd("SELECT INBOX")
                idler.s.sendall(b"i IDLE\r\n")
            time.sleep(2)
            print(f"{server.name}: 500 sessions in IDLE, in clear: {(server.memory() - before) / 500:.1f} KiB each")
    finally:
        for server in servers:
            server.stop()


def show(name, best):
    ours, theirs = best[name, "pillarbox"], best[name, "dovecot"]
    cell = lambda one: f"{one[0] * 1000:8.1f} ms {one[1] * 1000:4.0f}"
    cpu = f"{ours[1] / theirs[1]:6.2f}" if theirs[1] > 0.02 else "     -"
    print(f"{name:32} {cell(ours):>18} {cell(theirs):>18} {ours[0] / theirs[0]:6.2f} {cpu}", flush=True)


main()
