"""A letter's journey over TLS by Python's own clients: submitted, read by IMAP and by POP3.

Used by board/qemu-user.sh and image/verify.sh; needs nothing but Python. `Box` says where a server is.
"""
import imaplib
import poplib
import smtplib
import ssl
import time


class Box:
    """A server by its ports, the certificate of its authority and an account."""

    def __init__(self, ports, ca, address, password, name="localhost", patience=60):
        self.ports, self.address, self.password, self.patience = ports, address, password, patience
        self.name = name
        self.tls = ssl.create_default_context(cafile=ca)

    def _wrap(self):
        # The certificate is for the box's name; the connection goes to a forwarded port of this machine.
        context, name = self.tls, self.name

        class Named:
            def wrap_socket(self, sock, server_hostname=None, **more):
                return context.wrap_socket(sock, server_hostname=name, **more)

            def __getattr__(self, attribute):
                return getattr(context, attribute)

        return Named()

    def submit(self, subject, body, to=None):
        """Sends by port 465; returns when the server has said 250."""
        with smtplib.SMTP_SSL("127.0.0.1", self.ports["submissions"], timeout=self.patience, context=self._wrap()) as smtp:
            smtp.login(self.address, self.password)
            to = to or self.address
            head = f"From: <{self.address}>\r\nTo: <{to}>\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\n"
            head += "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
            smtp.sendmail(self.address, [to], (head + body + "\r\n").encode(), ["BODY=8BITMIME"])

    def imap(self):
        imap = imaplib.IMAP4_SSL("127.0.0.1", self.ports["imaps"], ssl_context=self._wrap(), timeout=self.patience)
        imap.login(self.address, self.password)
        return imap

    def subjects(self):
        """The subjects in INBOX and Junk, by IMAP."""
        imap, found = self.imap(), []
        for mailbox in ("INBOX", "Junk"):
            said, count = imap.select(mailbox, readonly=True)
            if said != "OK" or count == [b"0"]:
                continue
            _, rows = imap.fetch("1:*", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
            found += [row[1].decode().partition(":")[2].strip() for row in rows if isinstance(row, tuple)]
        imap.logout()
        return found

    def dates(self):
        """The internal dates of INBOX, by IMAP."""
        imap = self.imap()
        imap.select("INBOX", readonly=True)
        _, rows = imap.fetch("1:*", "(INTERNALDATE)")
        imap.logout()
        return [row.decode() for row in rows if row]

    def by_pop3(self):
        """The newest message of INBOX, by POP3."""
        pop3 = poplib.POP3_SSL("127.0.0.1", self.ports["pop3s"], context=self._wrap(), timeout=self.patience)
        pop3.user(self.address)
        pop3.pass_(self.password)
        count, _ = pop3.stat()
        lines = b"\r\n".join(pop3.retr(count)[1]).decode()
        pop3.quit()
        return lines

    def journey(self):
        """In by submission, out by IMAP and POP3, whole."""
        subject = f"journey {time.monotonic_ns()}"
        # A lone dot, a long line and letters beyond ASCII are what goes wrong.
        self.submit(subject, ".\r\n" + "x" * 900 + "\r\nGrüße")
        assert subject in self.subjects(), "IMAP does not show what was submitted"
        seen = self.by_pop3()
        assert subject in seen and "x" * 900 in seen and "Grüße" in seen, "POP3 does not give what was submitted"
