"""Logs in with a client certificate through Python's own libraries, and looks at what is offered to whom.

Arguments: the ports of imaps, imap, pop3s, submissions and submission, the authority, the certificate of the first
account, one that nobody registered, the two accounts' addresses, and what is to be done: `in` or `revoked`.
"""

import base64
import imaplib
import poplib
import re
import smtplib
import socket
import ssl
import sys

imaps, imap, pop3s, submissions, submission = map(int, sys.argv[1:6])
ca, own, strange, ann, bob, task = sys.argv[6:12]
HOST = "localhost"


def context(certificate, version=None):
    made = ssl.create_default_context(cafile=ca)
    if certificate:
        made.load_cert_chain(certificate)
    if version:
        made.minimum_version = made.maximum_version = version
    return made


def imap_login(ssl_context, acts_as=b"", starttls=False):
    """Tells whether EXTERNAL is offered, and who it lets in; the refusal otherwise."""
    if starttls:
        client = imaplib.IMAP4(HOST, imap)
        client.starttls(ssl_context)
    else:
        client = imaplib.IMAP4_SSL(HOST, imaps, ssl_context=ssl_context)
    offered = "AUTH=EXTERNAL" in client.capabilities
    try:
        client.authenticate("EXTERNAL", lambda _challenge: acts_as)
        assert client.select("INBOX")[0] == "OK"
        outcome = "in"
    except imaplib.IMAP4.error as error:
        outcome = str(error)
    client.logout()
    return offered, outcome


def pop3_login(ssl_context, acts_as=b""):
    client = poplib.POP3_SSL(HOST, pop3s, context=ssl_context)
    offered = "EXTERNAL" in client.capa().get("SASL", [])
    try:
        client._shortcmd("AUTH EXTERNAL " + (base64.b64encode(acts_as).decode() or "="))
        outcome = "in"
    except poplib.error_proto as error:
        outcome = str(error)
    client.quit()
    return offered, outcome


def smtp_login(ssl_context, acts_as="", starttls=False):
    if starttls:
        client = smtplib.SMTP(HOST, submission)
        client.starttls(context=ssl_context)
    else:
        client = smtplib.SMTP_SSL(HOST, submissions, context=ssl_context)
    client.ehlo()
    offered = "EXTERNAL" in client.esmtp_features["auth"].split()
    try:
        client.auth("EXTERNAL", lambda challenge=None: acts_as, initial_response_ok=bool(acts_as))
        client.sendmail(ann, [bob], f"From: {ann}\r\nTo: {bob}\r\nSubject: by certificate\r\n\r\nhello\r\n")
        outcome = "in"
    except smtplib.SMTPResponseException as error:
        outcome = str(error.smtp_code)
    client.quit()
    return offered, outcome


def greeted(ssl_context, session=None):
    """An IMAP connection as it is greeted, and its TLS session."""
    plain = socket.create_connection((HOST, imaps))
    secure = ssl_context.wrap_socket(plain, server_hostname=HOST, session=session)
    lines = secure.makefile("rwb")
    greeting = lines.readline().decode()
    return secure, lines, "AUTH=EXTERNAL" in greeting


def say(lines, line):
    lines.write(line + b"\r\n")
    lines.flush()
    return lines.readline().decode().rstrip()


OTHER = bob.encode()
if task == "in":
    for made in (context(own), context(own, ssl.TLSVersion.TLSv1_2)):
        assert imap_login(made) == (True, "in")
        assert imap_login(made, ann.encode(), starttls=True) == (True, "in")
        assert pop3_login(made) == (True, "in")
        assert pop3_login(made, ann.encode()) == (True, "in")
        assert smtp_login(made) == (True, "in")
        assert smtp_login(made, ann, starttls=True) == (True, "in")
    offered, refusal = imap_login(context(own), OTHER)
    assert offered and "AUTHENTICATIONFAILED" in refusal, refusal
    offered, refusal = pop3_login(context(own), OTHER)
    assert offered and "[AUTH]" in refusal, refusal
    assert smtp_login(context(own), bob) == (True, "535")
    for certificate in (None, strange):
        made = context(certificate)
        assert imap_login(made)[0] is False
        offered, refusal = pop3_login(made)
        assert not offered and "no such mechanism" in refusal, refusal
        assert smtp_login(made) == (False, "504")
    # A session that is resumed has its certificate, in both versions of TLS; it is asked about each time.
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        made = context(own, version)
        first, lines, offered = greeted(made)
        assert offered and not first.session_reused
        assert say(lines, b"a NOOP").startswith("a OK")
        kept = first.session
        first.close()
        second, lines, offered = greeted(made, kept)
        assert offered and second.session_reused, version
        assert say(lines, b"b AUTHENTICATE EXTERNAL =").startswith("b OK")
        second.close()
else:
    # Sessions of before the certificate is revoked, one open and one to be resumed.
    made = context(own, ssl.TLSVersion.TLSv1_2)
    open_one, lines, offered = greeted(made)
    assert offered
    to_resume, others, _ = greeted(made)
    kept = to_resume.session
    to_resume.close()
    print("ready", flush=True)
    sys.stdin.readline()
    answer = say(lines, b"a AUTHENTICATE EXTERNAL =")
    assert re.match(r"a NO \[AUTHENTICATIONFAILED\]", answer), answer
    resumed, lines, offered = greeted(made, kept)
    assert resumed.session_reused and not offered
    answer = say(lines, b"b AUTHENTICATE EXTERNAL =")
    assert answer.startswith("b NO [CANNOT]"), answer
    assert smtp_login(context(own)) == (False, "504")
print("done")
