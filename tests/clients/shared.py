"""Shares a mailbox by Python's imaplib: bob reads, flags and appends in ann's, carol sees nothing. Prints "all well" at
the end."""
import imaplib, ssl, sys

ca, imaps, ann, ann_pw, bob, bob_pw, carol, carol_pw = sys.argv[1:]
tls = ssl.create_default_context(cafile=ca)
NONE = "NONEXISTENT"


def client(user, password):
    m = imaplib.IMAP4_SSL("localhost", int(imaps), ssl_context=tls, timeout=20)
    m.login(user, password)
    for cap in ("ACL", "RIGHTS=KXTE", "LIST-MYRIGHTS", "NAMESPACE"):
        assert cap in m.capabilities, (cap, m.capabilities)
    return m


def ok(answer):
    assert answer[0] == "OK", answer
    return answer[1]


def no(answer, code):
    assert answer[0] == "NO" and code.encode() in answer[1][0], (answer, code)


owner = client(ann, ann_pw)
ok(owner.create("Family"))
letter = lambda subject: f"From: {ann}\r\nSubject: {subject}\r\n\r\ntext of {subject}\r\n".encode()
ok(owner.append("Family", None, None, letter("one")))
ok(owner.append("Family", None, None, letter("two")))
ok(owner.setacl("Family", bob, "lrswit"))
assert ok(owner.getacl("Family")) == [f"Family {ann} lrswipkxteacd {bob} lrswitd".encode()], owner.getacl("Family")

guest = client(bob, bob_pw)
theirs = f'"Other Users/{ann}/Family"'
assert b'(("Other Users/" "/"))' in ok(guest.namespace())[0]
assert any(theirs.encode() in line for line in ok(guest.list())), guest.list()
assert ok(guest.myrights(theirs)) == [f"{theirs} lrswitd".encode()], guest.myrights(theirs)
assert ok(guest.select(theirs)) == [b"2"]
data = ok(guest.fetch("1", "(BODY[] FLAGS)"))
assert b"text of one" in data[0][1] and rb"\Seen" in b"".join(part if isinstance(part, bytes) else part[0] for part in data), data
ok(guest.store("2", "+FLAGS", r"(\Flagged \Deleted keep)"))
ok(guest.append(theirs, r"(\Seen)", None, letter("three")))
no(guest.expunge(), "NOPERM")
no(guest.delete(theirs), "NOPERM")
no(guest.setacl(theirs, carol, "lr"), "NOPERM")

# The owner sees what the guest did.
ok(owner.select("Family"))
flags = ok(owner.fetch("1:3", "(FLAGS)"))
assert rb"\Seen" in flags[0] and rb"\Flagged" in flags[1] and rb"\Deleted" in flags[1] and b"keep" in flags[1], flags
assert b"three" in ok(owner.fetch("3", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])"))[0][1]

# Who has no rights finds nothing, whatever is tried, and is told the same of what is not there.
stranger = client(carol, carol_pw)
assert not any(b"Other Users" in line for line in ok(stranger.list())), stranger.list()
attempts = [
    lambda box: stranger.select(box), lambda box: stranger.select(box, readonly=True),
    lambda box: stranger.status(box, "(MESSAGES)"), lambda box: stranger.append(box, None, None, letter("four")),
    lambda box: stranger.create(box), lambda box: stranger.delete(box), lambda box: stranger.rename(box, "Mine"),
    lambda box: stranger.getacl(box), lambda box: stranger.setacl(box, carol, "lr"),
    lambda box: stranger.deleteacl(box, bob), lambda box: stranger.myrights(box), lambda box: stranger.getquotaroot(box),
    lambda box: stranger.xatom("GETMETADATA", box, "/shared/comment"),
    lambda box: stranger.xatom("LISTRIGHTS", box, carol),
    lambda box: stranger.xatom("SETMETADATA", box, '(/shared/comment "x")'),
]
for number, attempt in enumerate(attempts):
    answers = [attempt(box) for box in (theirs, f'"Other Users/{ann}/Missing"', '"Other Users/nobody@nowhere.test/Family"')]
    assert answers[0][0] == "NO" and answers.count(answers[0]) == 3, (number, answers)
ok(stranger.select("INBOX"))
before = ok(stranger.search(None, "ALL"))
if before[0]:
    missing = f'"Other Users/{ann}/Missing"'
    assert stranger.copy("1", theirs) == stranger.copy("1", missing), stranger.copy("1", theirs)

# What is taken away is gone at the next command.
ok(owner.deleteacl("Family", bob))
try:
    answer = guest.fetch("1", "(FLAGS)")
    assert answer[0] == "NO", answer
except imaplib.IMAP4.abort:
    pass
guest = client(bob, bob_pw)
no(guest.select(theirs), NONE)
print("all well")
