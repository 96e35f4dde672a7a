"""Mail between a running Pillarbox and a running Postfix, both ways; prints "all well" at the end.

Arguments: the authority's certificate, Pillarbox's ports for SMTP, submission and IMAPS, Postfix's port, the folder of
Postfix's mailboxes, "tls" or "clear" as Postfix is set up, and the words of the shell command that is Pillarbox's CLI."""
import email, email.policy, imaplib, os, smtplib, ssl, subprocess, sys, time

ca, smtp, submission, imaps, postfix, boxes, mode = sys.argv[1:8]
cli = sys.argv[8:]
context = ssl.create_default_context(cafile=ca)
ann, password = "ann@pillarbox.test", "secret"
PATIENCE = 60


def until(what, look):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.1)
    raise SystemExit(f"{what}: not within {PATIENCE} s")


def at_postfix(user, mark):
    """The message of a user at Postfix that holds `mark`, as it stands in the mbox."""
    def look():
        path = os.path.join(boxes, user)
        if not os.path.exists(path):
            return None
        with open(path, "rb") as file:
            return next((m for m in file.read().split(b"\n\nFrom ") if mark in m), None)
    return until(f"{mark} at {user}@postfix.test", look)


def at_pillarbox(mark):
    """The message in ann's INBOX that holds `mark`."""
    def look():
        box = imaplib.IMAP4_SSL("localhost", int(imaps), ssl_context=context, timeout=20)
        box.login(ann, password)
        for folder in ("INBOX", "Junk"):
            box.select(folder)
            for number in box.search(None, "ALL")[1][0].split():
                raw = box.fetch(number, "(BODY.PEEK[])")[1][0][1]
                if mark in raw:
                    box.logout()
                    return raw
        box.logout()
        return None
    return until(f"{mark} at {ann}", look)


def submit(to, subject, text="Grüße\n.dot\n", mail=(), rcpt=(), sender=ann):
    letter = f"From: {sender}\r\nTo: {to}\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\n"
    letter += "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    letter += text.replace("\n", "\r\n")
    with smtplib.SMTP("localhost", int(submission), timeout=60) as s:
        s.ehlo()
        s.starttls(context=context)
        s.ehlo()
        s.login(ann, password)
        refused = s.sendmail(sender, [to], letter.encode(), mail_options=["BODY=8BITMIME", *mail], rcpt_options=list(rcpt))
        assert refused == {}, refused


# Out: the letter as it was written, over TLS where Postfix has it, and Postfix's word that it came.
submit("bob@postfix.test", "one", mail=["RET=HDRS", "ENVID=letter-1"], rcpt=["NOTIFY=SUCCESS,FAILURE,DELAY"])
letter = at_postfix("bob", b"Subject: one")
assert letter.endswith("\n\nGrüße\n.dot\n".encode()) or letter.rstrip(b"\n").endswith("Grüße\n.dot".encode()), letter
assert letter.count(b"Return-Path: <ann@pillarbox.test>") == 1, letter
head = letter.split(b"\n\n")[0]
assert (b"using TLSv1" in head) == (mode == "tls"), head
notice = email.message_from_bytes(at_pillarbox(b"Original-Envelope-Id: letter-1"), policy=email.policy.default)
assert notice.get_content_type() == "multipart/report" and "delivered" in str(notice).lower(), notice

# A user Postfix does not know: its word comes back in a notification of ours.
submit("nobody@postfix.test", "two")
notice = email.message_from_bytes(at_pillarbox(b"Final-Recipient: rfc822; nobody@postfix.test"), policy=email.policy.default)
assert notice["Return-Path"].strip() == "<>" and notice["Auto-Submitted"].startswith("auto-"), notice
status = next(part for part in notice.walk() if part.get_content_type() == "message/delivery-status").as_string()
assert "Action: failed" in status and "Status: 5.1.1" in status and "550 5.1.1" in status, status

# Addresses beyond ASCII (RFC 6531), and a letter of 10 MB.
submit("jürgen@postfix.test", "three – ü", mail=["SMTPUTF8"])
at_postfix("jurgen", "Subject: three – ü".encode())
large = "".join(f"{n:075}\n" for n in range(140_000))
submit("bob@postfix.test", "four", text=large)
until("all of a large letter", lambda: large.encode().rstrip() in at_postfix("bob", b"Subject: four"))

# In: from Postfix, as it was written.
with smtplib.SMTP("localhost", int(postfix), timeout=20) as s:
    text = "From: bob@postfix.test\r\nTo: ann@pillarbox.test\r\nSubject: five\r\n\r\nGrüße\r\n..dots\r\n"
    assert s.sendmail("bob@postfix.test", [ann], text.encode(), mail_options=["BODY=8BITMIME"]) == {}
came = at_pillarbox(b"Subject: five")
assert came.endswith("\r\n\r\nGrüße\r\n..dots\r\n".encode()), came
received = came.split(b"\r\nReceived:")[0].replace(b"\r\n", b" ")
assert (b"TLSv1.3" in came[:2000]) == (mode == "tls"), came[:2000]
with smtplib.SMTP("localhost", int(postfix), timeout=20) as s:
    s.ehlo()
    text = "From: bob@postfix.test\r\nTo: ann+lönger@pillarbox.test\r\nSubject: six – ü\r\n\r\nx\r\n"
    s.sendmail("bob@postfix.test", ["ann+lönger@pillarbox.test"], text.encode(), mail_options=["BODY=8BITMIME", "SMTPUTF8"])
at_pillarbox("Subject: six – ü".encode())

# A user we do not know is refused in the dialogue, so that Postfix tells its sender.
with smtplib.SMTP("localhost", int(postfix), timeout=20) as s:
    s.sendmail("bob@postfix.test", ["nobody@pillarbox.test"], b"From: bob@postfix.test\r\nSubject: seven\r\n\r\nx\r\n")
assert b"550 5.1.1" in at_postfix("bob", b"nobody@pillarbox.test")

# NOTIFY=SUCCESS of a sender at Postfix is answered by us, who put it into the mailbox.
with smtplib.SMTP("localhost", int(postfix), timeout=20) as s:
    s.ehlo()
    s.sendmail("bob@postfix.test", [ann], b"From: bob@postfix.test\r\nSubject: eight\r\n\r\nx\r\n",
               mail_options=["ENVID=letter-8"], rcpt_options=["NOTIFY=SUCCESS"])
at_pillarbox(b"Subject: eight")
assert b"Action: delivered" in at_postfix("bob", b"Original-Envelope-Id: letter-8")

# What nobody waits for any more is not in the queue.
until("an empty queue", lambda: '"id"' not in subprocess.run([cli[0], "queue", "list", "--json", *cli[1:]], capture_output=True, text=True, check=True).stdout)
print("all well")
