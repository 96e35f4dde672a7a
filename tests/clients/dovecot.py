"""FETCH of ENVELOPE, BODYSTRUCTURE and sections by Pillarbox and by Dovecot over the same odd messages.

    dovecot.py HOST-PORT ADDRESS PASSWORD CA FOLDER...

Starts a Dovecot of its own on loopback, gives both the messages below the folders, and compares their answers. Where
they differ in what both may say, `same` knows; every other difference must be one that stands in EXPLAINED. Prints
"all well" at the end. As root, because Dovecot wants it.
"""
import os, re, shutil, signal, socket, ssl, subprocess, sys, tempfile, time
from pathlib import Path

# What is asked of each message.
ITEMS = ["RFC822.SIZE", "ENVELOPE", "BODY", "BODYSTRUCTURE"] + [
    f"BODY.PEEK[{section}]"
    for section in ("", "HEADER", "TEXT", "1", "1.MIME", "1.HEADER", "1.TEXT", "1.1", "1.2", "2", "2.MIME", "2.HEADER", "2.TEXT", "2.1",
                    "2.1.MIME", "2.2", "3", "3.MIME", "4", "HEADER.FIELDS (Subject To Content-Type)", "HEADER.FIELDS.NOT (Received)",
                    "2.HEADER.FIELDS (Subject)")]

HEADERLESS = "no line of it is a field: to us all of it is text, to Dovecot the lines up to the first empty one are a header"
NO_BOUNDARY = "a multipart without a usable boundary: to us it is the text it is, to Dovecot a multipart of one empty part"
DAMAGED = "parameters behind a stray semicolon or without one: we find the boundary, Dovecot does not"
UNTYPED = "Content-Type is no type: text/plain to us (RFC 2045 section 5.2), an empty type to Dovecot"
UNOPENED = "a multipart in which no part begins: a text to us, to Dovecot a multipart of one empty part"
TORTURE = "delimiters that begin like one another, or stand in a header: whose they are is a matter of taste"
ENCODED = "a message in base64, which RFC 2046 section 5.2.1 forbids: application/octet-stream to us, a message to Dovecot"
ENDLESS = "a header that does not end before a delimiter or before the text: what of it is the body is a matter of taste"
ADDRESS = "an address that breaks the grammar: both show what they can make of it"
FOLDED = "a folded field: we take the line end out (RFC 5322 section 2.2.3), Dovecot makes white space one space"
TWICE = "a field that may stand once stands twice: we show the first, Dovecot the last"
LONG = "a header of 132 KiB: we keep what stands in its front (mail/structure.rs says how much)"
CR_CR = "a line that ends with CR CR LF: Dovecot drops a CR, we keep what came"
COUNTED = "sizes of messages with a multipart in them: Dovecot counts the line end that is the outer delimiter's"
PERCENT = "escapes of RFC 2231: Dovecot undoes one of several, we show what is there"
CODING = "a transfer encoding that is none: we show it, Dovecot says 7bit"

# Messages that differ beyond `same`.
EXPLAINED = {
    "TestData_encoders_wikipedia.txt.eml": HEADERLESS,
    "TestData_mbox_content-length-summary.txt.eml": UNTYPED,
    "TestData_mbox_content-length.mbox.txt-0.eml": DAMAGED,
    "TestData_mbox_content-length.mbox.txt-1.eml": FOLDED,
    "TestData_mbox_content-length.mbox.txt-2.eml": FOLDED,
    "TestData_mbox_content-length.mbox.txt-4.eml": FOLDED,
    "TestData_mbox_content-length.mbox.txt-6.eml": ADDRESS,
    "TestData_mbox_content-length.mbox.txt.eml": DAMAGED,
    "TestData_mbox_issue1189-summary.txt.eml": UNTYPED,
    "TestData_mbox_jwz-summary.txt.eml": UNTYPED,
    "TestData_mbox_simple.mbox.txt-2.eml": NO_BOUNDARY,
    "TestData_messages_empty-multipart.txt.eml": UNOPENED,
    "TestData_messages_feedback-report.txt.eml": ADDRESS,
    "TestData_messages_issue358.txt.eml": ADDRESS,
    "TestData_messages_missing-subtype.txt.eml": UNTYPED,
    "TestData_messages_rfc2060.txt.eml": COUNTED,
    "TestData_messages_stack-overflow.txt.eml": LONG,
    "TestData_text_lorem-ipsum.txt.eml": HEADERLESS,
    "TestData_text_planet-fitness.txt.eml": HEADERLESS,
    "TestData_tnef_triples_message.txt.eml": HEADERLESS,
    "addresses.eml": ADDRESS,
    "boundary-prefix.eml": TORTURE,
    "eml_legacy_049.eml.eml": CR_CR,
    "eml_malformed_001.eml.eml": TORTURE,
    "eml_malformed_002.eml.eml": UNOPENED,
    "eml_malformed_004.eml.eml": TORTURE,
    "eml_malformed_007.eml.eml": TORTURE,
    "eml_malformed_016.eml.eml": TORTURE,
    "eml_malformed_017.eml.eml": DAMAGED,
    "eml_malformed_019.eml.eml": TWICE,
    "eml_malformed_022.eml.eml": HEADERLESS,
    "eml_rfc_008.eml.eml": ENCODED,
    "eml_rfc_009.eml.eml": ADDRESS,
    "eml_thirdparty_004.eml.eml": CODING,
    "eml_thirdparty_007.eml.eml": COUNTED,
    "eml_thirdparty_015.eml.eml": ENDLESS,
    "encoded-message.eml": ENCODED,
    "names.eml": PERCENT,
    "no-boundary.eml": NO_BOUNDARY,
    "no-empty-line.eml": ENDLESS,
    "no-header.eml": HEADERLESS,
    "part-without-empty-line.eml": ENDLESS,
}


def crlf(text):
    return re.sub(rb"\r?\n", b"\r\n", text)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Imap:
    def __init__(self, sock, user, password):
        self.s, self.rest, self.n = sock, b"", 0
        self.line()
        self.cmd(f"LOGIN {user} {password}")

    def fill(self):
        piece = self.s.recv(1 << 20)
        if not piece:
            raise SystemExit("the server hung up")
        self.rest += piece

    def line(self):
        """A response with its literals."""
        at = 0
        while True:
            end = self.rest.find(b"\r\n", at)
            if end < 0:
                self.fill()
                continue
            literal = re.search(rb"\{(\d+)\}$", self.rest[at:end])
            if not literal:
                line, self.rest = self.rest[:end], self.rest[end + 2:]
                return line
            at = end + 2 + int(literal.group(1))
            while len(self.rest) < at:
                self.fill()

    def cmd(self, line, data=b""):
        self.n += 1
        tag = f"t{self.n}".encode()
        self.s.sendall(tag + b" " + line.encode() + data + b"\r\n")
        answers = []
        while True:
            answer = self.line()
            if answer.startswith(tag + b" "):
                return answers if answer[len(tag) + 1:].startswith(b"OK") else None
            answers.append(answer)


def dovecot(folder):
    port = free_port()
    os.chmod(folder, 0o755)
    os.mkdir(f"{folder}/mail")
    os.chown(f"{folder}/mail", 5600, 5600)
    Path(folder, "dovecot.conf").write_text(f"""base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
protocols = imap
listen = 127.0.0.1
mail_location = sdbox:{folder}/mail/%u
mail_uid = 5600
mail_gid = 5600
first_valid_uid = 1
ssl = no
disable_plaintext_auth = no
passdb {{
  driver = static
  args = password=secret
}}
userdb {{
  driver = static
  args = uid=5600 gid=5600 home={folder}/mail/%u
}}
service imap-login {{
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
""")
    process = subprocess.Popen(["dovecot", "-F", "-c", f"{folder}/dovecot.conf"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(200):
        try:
            return process, Imap(socket.create_connection(("127.0.0.1", port), timeout=30), "ann", "secret")
        except OSError:
            time.sleep(0.05)
    raise SystemExit("Dovecot does not start: " + Path(folder, "log").read_text()[-500:])


def words(answer):
    """The words of an answer; strings of every spelling alike."""
    found, at = [], 0
    token = re.compile(rb'\s*(?:~?\{(\d+)\}\r\n|("(?:[^"\\]|\\.)*")|([()])|((?:\[[^\]]*\]|[^\s()"\[])+))')
    while match := token.match(answer, at):
        at = match.end()
        literal, quoted, paren, atom = match.groups()
        if literal is not None:
            found.append(("s", answer[at:at + int(literal)]))
            at += int(literal)
        elif quoted is not None:
            found.append(("s", re.sub(rb"\\(.)", rb"\1", quoted[1:-1])))
        else:
            found.append(("a", (paren or atom).upper()))
    return found


def text(word, structure):
    kind, value = word
    if kind == "a":
        # What is not there is NIL with us and empty with Dovecot (RFC 9051 section 7.5.2 has both).
        return b"" if value == b"NIL" else value
    if structure:
        # An address without a domain: we say nothing, Dovecot says so.
        value = b"" if value in (b"MISSING_DOMAIN", b"MISSING_MAILBOX") else value
        # IMAP speaks UTF-8: we show raw bytes beyond ASCII as the Latin-1 that they are, Dovecot as they came.
        try:
            value.decode()
        except UnicodeDecodeError:
            value = value.decode("latin-1").encode()
        return value.lower()
    return value


def same(item, ours, theirs):
    structure = item in ("ENVELOPE", "BODY", "BODYSTRUCTURE")
    lists = []
    for answer in (ours, theirs):
        if answer is None:
            return False
        answer = b" ".join(line for line in answer if b" FETCH " in line).split(b" FETCH ", 1)[1]
        spelled = [text(word, structure) for word in words(answer)]
        joined = b"\0".join(spelled)
        if structure:
            # A text without a charset is us-ascii (RFC 2046 section 4.1.2): Dovecot says so, we show what is there.
            joined = re.sub(rb"(\0text\0[^\0]*)\0\(\0charset\0us-ascii\0\)", rb"\1\0", joined)
            joined = re.sub(rb"\0charset\0us-ascii\0\)", rb"\0)", joined)
        lists.append(joined)
    if lists[0] == lists[1]:
        return True
    # Between two delimiters that follow one another, and behind a closed multipart, there is one line end. It is the
    # outer delimiter's (RFC 2046 section 5.1.1); Dovecot counts it to the part, or takes it from the part's header.
    shorter, longer = reversed(lists) if item.endswith(".MIME]") else lists
    return not structure and shorter.removesuffix(b"\0)") + b"\r\n\0)" == longer


def value(answer):
    return text(words(b" ".join(answer).split(b" FETCH ", 1)[1])[2], False)


def itself(item, told):
    """A part that has no parts: to us there is no first one of them, to Dovecot it is the part itself."""
    first = re.fullmatch(r"(BODY.PEEK\[.*\d)\.1(\.MIME)?\]", item)
    if not first or value(told[item][0]):
        return False
    return value(told[item][1]) == value(told[f"{first.group(1)}{first.group(2) or ''}]"][1])


def main():
    port, address, password, ca, *folders = sys.argv[1:]
    files = sorted(file for folder in folders for file in Path(folder).rglob("*.eml"))
    letters = [(file.name, crlf(file.read_bytes())) for file in files]
    letters = [(name, letter) for name, letter in letters if letter and b"\0" not in letter]
    tls = ssl.create_default_context(cafile=ca)
    room = tempfile.mkdtemp(prefix="dovecot-")
    process, theirs = dovecot(room)
    unexplained, needless = {}, set(EXPLAINED) & {name for name, _ in letters}
    try:
        ours = Imap(tls.wrap_socket(socket.create_connection(("localhost", int(port)), timeout=30), server_hostname="localhost"), address, password)
        for imap in (ours, theirs):
            assert imap.cmd("CREATE compared") is not None
            for _, letter in letters:
                assert imap.cmd(f"APPEND compared {{{len(letter)}+}}", b"\r\n" + letter) is not None
            assert imap.cmd("SELECT compared") is not None
        for number, (name, _) in enumerate(letters, 1):
            told = {item: [imap.cmd(f"FETCH {number} ({item})") for imap in (ours, theirs)] for item in ITEMS}
            for item, answers in told.items():
                if not same(item, *answers) and not itself(item, told):
                    needless.discard(name)
                    if name not in EXPLAINED:
                        unexplained.setdefault(name, []).append((item, *answers))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        shutil.rmtree(room, ignore_errors=True)
    for name, differences in unexplained.items():
        print(name)
        for item, our, their in differences:
            print(f"   {item}\n      pillarbox {b' '.join(our or [b'NO'])[:700]}\n      dovecot   {b' '.join(their or [b'NO'])[:700]}")
    for name in sorted(needless):
        print(f"{name}: is explained and does not differ")
    if unexplained or needless:
        raise SystemExit(f"{len(unexplained)} messages differ, and nobody said why")
    print(f"{len(letters)} messages, {len(ITEMS)} questions each: all well")


main()
