"""Drives a running Pillarbox by Python's smtplib, imaplib and poplib; prints "all well" at the end."""
import imaplib, poplib, smtplib, ssl, sys, threading, time
from email.message import EmailMessage

ca, smtp, submission, submissions, imap, imaps, pop3, pop3s, ann, ann_pw, bob, bob_pw = sys.argv[1:]
tls = ssl.create_default_context(cafile=ca)


def letter(subject):
    m = EmailMessage()
    m["From"], m["To"], m["Subject"] = ann, bob, subject
    m.set_content("Grüße aus dem Kasten\n.dot\n")
    m.add_attachment(bytes(range(256)) * 40, maintype="application", subtype="octet-stream", filename="bytes.bin")
    return m


# -- smtplib
with smtplib.SMTP_SSL("localhost", int(submissions), context=tls, timeout=20) as s:
    s.login(ann, ann_pw)
    assert s.send_message(letter("one by smtplib")) == {}
with smtplib.SMTP("localhost", int(submission), timeout=20) as s:
    s.ehlo()
    assert not s.has_extn("auth"), "AUTH is offered in clear"
    s.starttls(context=tls)
    s.ehlo()
    for ext in ("auth", "pipelining", "size", "8bitmime", "smtputf8", "chunking", "dsn", "enhancedstatuscodes"):
        assert s.has_extn(ext), ext
    s.login(ann, ann_pw)
    assert s.send_message(letter("two by smtplib")) == {}
    try:
        s.sendmail(ann, ["stranger@elsewhere.test"], "Subject: x\r\n\r\nx\r\n")
        raise SystemExit("a remote recipient was taken")
    except smtplib.SMTPRecipientsRefused as e:
        assert all(500 <= code < 600 for code, _ in e.recipients.values()), e.recipients
with smtplib.SMTP("localhost", int(smtp), timeout=20) as s:
    refused = s.sendmail("carol@elsewhere.test", [bob, "nobody@" + bob.split("@")[1]], "Subject: three\r\n\r\nx\r\n")
    assert len(refused) == 1, refused

# -- imaplib
m = imaplib.IMAP4_SSL("localhost", int(imaps), ssl_context=tls, timeout=20)
try:
    m.login(bob, "wrong")
    raise SystemExit("a wrong password was taken")
except imaplib.IMAP4.error:
    pass
m.login(bob, bob_pw)
for cap in ("IMAP4REV1", "IDLE", "UIDPLUS", "MOVE", "LITERAL+", "CONDSTORE", "ESEARCH", "SPECIAL-USE", "QUOTA"):
    assert cap in m.capabilities, (cap, m.capabilities)
typ, boxes = m.list()
names = b" ".join(boxes)
for box in (b"INBOX", b"Drafts", b"Sent", b"Junk", b"Trash", b"Archive"):
    assert box in names, names
assert m.select("INBOX")[0] == "OK"
typ, found = m.search(None, "SUBJECT", '"by smtplib"')
ids = found[0].split()
assert len(ids) == 2, found
typ, data = m.fetch(ids[0], "(BODY.PEEK[] ENVELOPE BODYSTRUCTURE RFC822.SIZE FLAGS INTERNALDATE)")
raw = data[0][1]
assert b"one by smtplib" in raw and len(raw) == int(data[0][0].split(b"RFC822.SIZE ")[1].split()[0].rstrip(b")")) if b"RFC822.SIZE" in data[0][0] else True
import email, email.policy
parsed = email.message_from_bytes(raw, policy=email.policy.default)
assert parsed.get_body().get_content().replace("\r\n", "\n") == "Grüße aus dem Kasten\n.dot\n"
assert next(parsed.iter_attachments()).get_content() == bytes(range(256)) * 40
typ, part = m.fetch(ids[0], "(BODY.PEEK[2.MIME] BODY.PEEK[1]<0.10>)")
assert typ == "OK" and any(b"bytes.bin" in p[1] for p in part if isinstance(p, tuple)), part
assert m.store(ids[0], "+FLAGS", r"(\Seen $Forwarded)")[0] == "OK"
assert b"$Forwarded" in m.fetch(ids[0], "(FLAGS)")[1][0]
assert m.create('"Projekte/&AMQ-hre"')[0] == "OK"
assert m.copy(ids[0], '"Projekte/&AMQ-hre"')[0] == "OK"
assert m.uid("MOVE", "1:*", "Archive")[0] == "OK"
assert m.select("INBOX")[1] == [b"0"]
assert m.append("Drafts", r"(\Draft)", imaplib.Time2Internaldate(86400 * 365), b"Subject: draft\r\n\r\nbody\r\n")[0] == "OK"
assert m.status("Drafts", "(MESSAGES UNSEEN UIDNEXT SIZE)")[1][0].count(b"MESSAGES 1") == 1
assert m.rename('"Projekte/&AMQ-hre"', "Fertig")[0] == "OK"
assert m.select("Fertig")[1] == [b"1"]
assert m.store("1", "+FLAGS", r"(\Deleted)")[0] == "OK" and m.expunge()[1] == [b"1"]
assert m.unselect()[0] == "OK"
assert m.delete("Fertig")[0] == "OK"
assert m.getquotaroot("INBOX")[0] == "OK"

# IDLE hears of new mail at once
m.select("INBOX")
m.send(b"i1 IDLE\r\n")
assert m.readline().startswith(b"+")
with smtplib.SMTP("localhost", int(smtp), timeout=20) as s:
    s.sendmail("carol@elsewhere.test", [bob], "Subject: wake up\r\n\r\nx\r\n")
    at = time.monotonic()
    line = m.readline()
    while b"EXISTS" not in line:
        line = m.readline()
    took = time.monotonic() - at
m.send(b"DONE\r\n")
while not m.readline().startswith(b"i1 OK"):
    pass
assert took < 5, took

# an attachment goes into a new draft (CATENATE) and the draft to ann (URLAUTH, BURL): nothing is downloaded
imaplib.Commands["GENURLAUTH"] = ("AUTH", "SELECTED")
m.select("Archive")
whose = m.uid("SEARCH", "SUBJECT", '"one by smtplib"')[1][0].split()[0]
head = f"From: {bob}\r\nTo: {ann}\r\nSubject: forwarded\r\nMIME-Version: 1.0\r\n".encode()
m.send(b"c1 APPEND Drafts CATENATE (TEXT {%d+}\r\n%s" % (len(head), head))
m.send(b' URL "/Archive/;UID=%s/;SECTION=2.MIME" URL "/Archive/;UID=%s/;SECTION=2")\r\n' % (whose, whose))
line = m.readline()
while not line.startswith(b"c1 "):
    line = m.readline()
assert line.startswith(b"c1 OK [APPENDUID "), line
draft = line.split(b"]")[0].split()[-1].decode()
user = bob.replace("@", "%40")
rump = f"imap://{user}@localhost/Drafts/;UID={draft};URLAUTH=submit+{user}"
assert m._simple_command("GENURLAUTH", f'"{rump}"', "INTERNAL")[0] == "OK"
url = m._untagged_response("OK", [None], "GENURLAUTH")[1][0].decode().strip('"')
with smtplib.SMTP_SSL("localhost", int(submissions), context=tls, timeout=20) as s:
    s.login(bob, bob_pw)
    assert s.esmtp_features["burl"] == "imap"
    assert s.mail(bob)[0] == 250 and s.rcpt(ann)[0] == 250
    assert s.docmd("BURL", url + " LAST")[0] == 250
a = imaplib.IMAP4_SSL("localhost", int(imaps), ssl_context=tls, timeout=20)
a.login(ann, ann_pw)
a.select("INBOX")
came = a.search(None, "SUBJECT", "forwarded")[1][0].split()
raw = a.fetch(came[-1], "(BODY.PEEK[])")[1][0][1]
assert email.message_from_bytes(raw, policy=email.policy.default).get_content() == bytes(range(256)) * 40
a.logout()
m.logout()

# -- poplib
p = poplib.POP3_SSL("localhost", int(pop3s), context=tls, timeout=20)
caps = p.capa()
for cap in ("TOP", "UIDL", "USER", "SASL", "PIPELINING", "RESP-CODES", "AUTH-RESP-CODE", "EXPIRE", "IMPLEMENTATION"):
    assert cap in caps, caps
p.user(bob)
p.pass_(bob_pw)
count, size = p.stat()
assert count == 1 and size > 0
assert b"Subject: wake up" in p.retr(1)[1] and len(p.top(1, 0)[1]) >= 2
uid = p.uidl(1)
second = poplib.POP3("localhost", int(pop3), timeout=20)
second.stls(context=tls)
second.user(bob)
try:
    second.pass_(bob_pw)
    raise SystemExit("two sessions have one maildrop")
except poplib.error_proto as e:
    assert "IN-USE" in str(e), e
second.quit()
p.dele(1)
p.rset()
assert p.stat()[0] == 1 and p.uidl(1) == uid
p.dele(1)
p.quit()
p = poplib.POP3("localhost", int(pop3), timeout=20)
p.stls(context=tls)
p.user(bob)
p.pass_(bob_pw)
assert p.stat() == (0, 0)
p.quit()
# -- odd IMAP clients: one that talks before it was greeted, one that uploads 25 MiB unasked
import socket


def odd(said, answered):
    with tls.wrap_socket(socket.create_connection(("localhost", int(imaps)), timeout=120), server_hostname="localhost") as s:
        for piece in said:
            s.sendall(piece)
        heard = b""
        while piece := s.recv(65536):
            heard += piece
        at = 0
        for wanted in answered:
            at = heard.find(wanted, at) + len(wanted)
            assert at >= len(wanted), (wanted, heard[-2000:])


login = f"a LOGIN {bob} {bob_pw}\r\n".encode()
odd([b"x CAPABILITY\r\n" + login + b"b SELECT INBOX\r\nc LOGOUT\r\n"],
    [b"* OK ", b"\r\nx OK ", b"\r\na OK ", b"\r\nb OK ", b"\r\n* BYE ", b"\r\nc OK "])
huge = b"Subject: large\r\n\r\n" + (b"x" * 76 + b"\r\n") * (25 * 1024 * 1024 // 78)
odd([login, b"x CREATE Huge\r\nb APPEND Huge {%d+}\r\n" % len(huge), huge, b"\r\nc STATUS Huge (SIZE)\r\nd LOGOUT\r\n"],
    [b"\r\nb OK [APPENDUID ", b"* STATUS Huge (SIZE %d)" % len(huge), b"\r\nc OK "])

print("all well")
