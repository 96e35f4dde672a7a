#!/usr/bin/env python3
"""Measures Pillarbox and Dovecot, with Maildir and with sdbox, over IMAP on the same messages in one run.

    cargo build --release && python3 benches/imap_peers.py [MESSAGES [OPERATION ...]]        10000 messages, all operations

Python's standard library, and Debian's dovecot-imapd. The servers run on folders and ports of their own, on
loopback, and are ended by their process ids. Each operation is done in turn on each of them, three times and in each
as often as fits a third of a second; what counts is the best of each server, and a ratio below 1 says that Pillarbox
was the better one. CPU is that of the server's processes. As root, because Dovecot wants it.
"""
import os, random, re, shutil, signal, socket, subprocess, sys, tempfile, time, zlib
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
BINARY = os.environ.get("PILLARBOX", str(HERE / "target/release/pillarbox"))
COUNT = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
CHOSEN = sys.argv[2:]
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
        if not answer[answer.rfind(tag):].startswith(tag + b" OK"):
            raise SystemExit(f"{line[:60]}: {answer[-200:]!r}")
        return answer

    def compress(self):
        """From here on both directions are deflated (RFC 4978)."""
        self.cmd("COMPRESS DEFLATE")
        plain, pack, unpack = self.s, zlib.compressobj(1, zlib.DEFLATED, -15), zlib.decompressobj(-15)

        class Deflated:
            def sendall(self, data):
                plain.sendall(pack.compress(data) + pack.flush(zlib.Z_SYNC_FLUSH))

            def recv(self, size):
                while raw := plain.recv(size):
                    if text := unpack.decompress(raw):
                        return text
                return b""

        self.s = Deflated()


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
    def __init__(self, form):
        self.name = form
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
mail_location = {form}:{self.folder}/mail/%u
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
protocol imap {{
  mail_plugins = imap_zlib
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


SINGLY = 200   # messages appended one by one, to see what that takes; the others 32 at a time


def fill(imap, letters):
    for at in range(0, len(letters), 32):
        parts = letters[at:at + 32]
        rest = b"".join(b"\r\n" + text + (b" {%d+}" % len(after) if after else b"") for text, after in zip(parts, parts[1:] + [b""]))
        imap.cmd(f"APPEND INBOX {{{len(parts[0])}+}}", rest)


def append(imap, letters):
    for text in letters:
        imap.cmd(f"APPEND INBOX {{{len(text)}+}}", b"\r\n" + text)


def flagged(imap):
    imap.cmd("STORE 1:* +FLAGS.SILENT (\\Flagged)")
    imap.cmd("STORE 1:* -FLAGS.SILENT (\\Flagged)")


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
    ("STORE on all, and back", flagged),
]


def timed(server, work, times=1):
    """Seconds and CPU seconds of one of so many."""
    cpu, start = server.cpu(), time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - start) / times, (server.cpu() - cpu) / times


def resync(server, imap):
    """A client that was away comes back: what it must know is in the answer to SELECT."""
    state = imap.cmd("SELECT INBOX (CONDSTORE)").decode("latin-1")
    valid, modseq = (re.search(rf"\[{code} (\d+)\]", state).group(1) for code in ("UIDVALIDITY", "HIGHESTMODSEQ"))
    imap.cmd("STORE 1:100 +FLAGS.SILENT (\\Answered)")
    other = Imap(server.port, *server.login)
    other.cmd("ENABLE QRESYNC")
    outcome = timed(server, lambda: other.cmd(f"SELECT INBOX (QRESYNC ({valid} {modseq}))"), 20)
    imap.cmd("STORE 1:100 -FLAGS.SILENT (\\Answered)")
    return outcome


def settled(server, imap, work):
    """As `timed`, of what takes 1,000 messages out of INBOX; CPU until the server rests, for what it leaves for later."""
    before, cpu = len(uids(imap)), server.cpu()
    seconds = timed(server, work)[0]
    last = None
    while last != (last := server.cpu()):
        time.sleep(1)
    if len(uids(imap)) != before - 1000:
        raise SystemExit(f"{server.name}: {before} messages became {len(uids(imap))}")
    return seconds, last - cpu


def uids(imap):
    return imap.cmd("UID SEARCH ALL").split(b"SEARCH")[1].split(b"\r\n")[0].split()


def moved(server, imap):
    imap.cmd("SELECT INBOX")
    return settled(server, imap, lambda: imap.cmd("MOVE 1:1000 Trash"))


def expunged(server, imap):
    imap.cmd("SELECT INBOX")
    imap.cmd("STORE 1:1000 +FLAGS.SILENT (\\Deleted)")
    return settled(server, imap, lambda: imap.cmd("EXPUNGE"))


def idlers(server, count, begin):
    """KiB that each of so many sessions takes."""
    before, sessions = server.memory(), [Imap(server.port, *server.login) for _ in range(count)]
    for session in sessions:
        begin(session)
    time.sleep(2)
    return (server.memory() - before) / count, sessions


def idle(session):
    session.cmd("SELECT INBOX")
    session.s.sendall(b"i IDLE\r\n")


def compressed(session):
    session.compress()
    session.cmd("SELECT INBOX")
    session.cmd("FETCH 1:50 (ENVELOPE BODY.PEEK[])")


def uncompressed(session):
    session.cmd("SELECT INBOX")
    session.cmd("FETCH 1:50 (ENVELOPE BODY.PEEK[])")


def chosen(name):
    return not CHOSEN or any(word in name for word in CHOSEN)


def main():
    servers = [Pillarbox(), Dovecot("maildir"), Dovecot("sdbox")]
    try:
        sessions = [connected(server) for server in servers]
        letters = [letter(n) for n in range(COUNT)]
        best = {}
        for server, imap in zip(servers, sessions):
            seconds, cpu = timed(server, lambda: append(imap, letters[:SINGLY]))
            best["APPEND, each of 200", server.name] = seconds / SINGLY, cpu / SINGLY
            fill(imap, letters[SINGLY:])
            imap.cmd("SELECT INBOX")
        print(f"{COUNT} messages, {sum(map(len, letters)) >> 20} MiB; ms, ms of CPU")
        print(f"{'':32}" + "".join(f"{server.name:>20}" for server in servers) + "   time, CPU : maildir      : sdbox")
        show("APPEND, each of 200", servers, best)
        for name, work in OPERATIONS:
            if not chosen(name):
                continue
            for turn in range(3):
                for server, imap in zip(servers, sessions):
                    # The first warms up, and tells how often it fits.
                    once = timed(server, lambda: work(imap))[0] if turn == 0 else best[name, server.name][0]
                    found = timed(server, lambda: work(imap), min(max(int(0.3 / once), 1), 40))
                    known = best.get((name, server.name), (1e9, 1e9))
                    best[name, server.name] = min(found[0], known[0]), min(found[1], known[1])
            show(name, servers, best)
        for name, work in [("QRESYNC", resync), ("MOVE 1,000", moved), ("EXPUNGE 1,000", expunged)]:
            if not chosen(name):
                continue
            for _ in range(3):
                for server, imap in zip(servers, sessions):
                    found, known = work(server, imap), best.get((name, server.name), (1e9, 1e9))
                    best[name, server.name] = min(found[0], known[0]), min(found[1], known[1])
            show(name, servers, best)
        if not chosen("idle"):
            return
        for server in servers:
            idling, open_ones = idlers(server, 500, idle)
            plain, more = idlers(server, 50, uncompressed)
            deflated, most = idlers(server, 50, compressed)
            print(f"{server.name}: KiB a session: {idling:.1f} each of 500 in IDLE, in clear; {plain:.1f} each of 50 after 50 bodies, {deflated:.1f} with COMPRESS")
            del open_ones, more, most
    finally:
        for server in servers:
            server.stop()


def show(name, servers, best):
    found = [best[name, server.name] for server in servers]
    ratio = lambda one, other: f"{one / other:6.2f}" if other > 0 else "     -"
    line = "".join(f"{one[0] * 1000:11.2f} {one[1] * 1000:8.2f}" for one in found)
    line += "".join(f"  :{ratio(found[0][0], one[0])}{ratio(found[0][1], one[1])}" for one in found[1:])
    print(f"{name:32}{line}", flush=True)


if __name__ == "__main__":
    main()
