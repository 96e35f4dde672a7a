"""Drives a running Pillarbox by imapclient and aioimaplib, and by deflate; prints "all well" at the end."""
import asyncio, socket, ssl, sys, zlib
from imapclient import IMAPClient
import aioimaplib

ca, imaps, ann, ann_pw = sys.argv[1:]
tls = ssl.create_default_context(cafile=ca)


def letter(number, references=""):
    return (f"From: Bob <bob@example.org>\r\nTo: {ann}\r\nSubject: {'Re: ' if references else ''}plan\r\n"
            f"Message-ID: <{number}@example.org>\r\nDate: Mon, 2 Feb 2026 10:0{number}:00 +0000\r\n{references}\r\nbody of {number}\r\n").encode()


# -- imapclient: sorting, threads, moving, quotas, MULTIAPPEND, CONDSTORE
with IMAPClient("localhost", port=int(imaps), ssl_context=tls) as c:
    c.login(ann, ann_pw)
    for cap in ("SORT", "THREAD=REFERENCES", "MULTIAPPEND", "QRESYNC", "MOVE", "COMPRESS=DEFLATE", "OBJECTID", "PREVIEW"):
        assert c.has_capability(cap), (cap, c.capabilities())
    c.create_folder("Work/Plans")
    c.multiappend("Work/Plans", [letter(1), letter(2, "References: <1@example.org>\r\n"), letter(3)])
    state = c.select_folder("Work/Plans")
    assert state[b"EXISTS"] == 3 and state[b"HIGHESTMODSEQ"] > 0, state
    assert c.sort("REVERSE DATE") == [3, 2, 1]
    # The third is of the same subject and answers nobody: both stand below one that is not there (RFC 5256 section 3).
    assert c.thread("REFERENCES") == (((1, 2), (3,)),), c.thread("REFERENCES")
    data = c.fetch([1, 2, 3], ["ENVELOPE", "BODY.PEEK[HEADER.FIELDS (SUBJECT)]", "PREVIEW", "MODSEQ"])
    assert data[2][b"ENVELOPE"].subject == b"Re: plan" and data[2][b"PREVIEW"] == b"body of 2", data[2]
    before = max(row[b"MODSEQ"][0] for row in data.values())
    c.add_flags([2], [r"\Flagged", "$later"])
    changed = c.fetch([1, 2, 3], ["FLAGS"], [f"CHANGEDSINCE {before}"])
    assert set(changed) == {2} and b"$later" in changed[2][b"FLAGS"], changed
    c.move([3], "Archive")
    assert c.search(["SUBJECT", "plan"]) == [1, 2]
    assert c.search(["TEXT", "body of 2"]) == [2]
    assert c.get_quota_root("INBOX")
    assert c.namespace().other == (("Other Users/", "/"),), c.namespace()
    c.setacl("Work/Plans", "anyone", "lr")
    assert c.getacl("Work/Plans") == [(ann.encode(), b"lrswipkxteacd"), (b"anyone", b"lr")], c.getacl("Work/Plans")
    c.idle()
    with IMAPClient("localhost", port=int(imaps), ssl_context=tls) as other:
        other.login(ann, ann_pw)
        other.append("Work/Plans", letter(4), flags=[r"\Seen"])
    heard = []
    while not any(b"EXISTS" in line for line in heard):
        heard += c.idle_check(timeout=10) or sys.exit("nothing came in IDLE")
    c.idle_done()


# -- aioimaplib
async def asynchronous():
    c = aioimaplib.IMAP4_SSL("localhost", int(imaps), ssl_context=tls, timeout=20)
    await c.wait_hello_from_server()
    assert (await c.login(ann, ann_pw)).result == "OK"
    assert (await c.select("Work/Plans")).result == "OK"
    answer = await c.uid("fetch", "1:*", "(FLAGS BODY.PEEK[])")
    assert answer.result == "OK" and any(b"body of 4" in line for line in answer.lines), answer
    assert (await c.uid("store", "1", "+FLAGS", r"(\Deleted)")).result == "OK"
    assert (await c.expunge()).result == "OK"
    found = await c.uid_search("ALL")
    assert found.lines[0].split() == [b"2", b"4"], found
    await c.idle_start(timeout=10)
    c.idle_done()
    await c.logout()

asyncio.run(asynchronous())

# -- COMPRESS=DEFLATE, both ways
with tls.wrap_socket(socket.create_connection(("localhost", int(imaps)), timeout=20), server_hostname="localhost") as s:
    def until(tag, read):
        got = b""
        while b"\r\n" + tag not in b"\r\n" + got or not got.endswith(b"\r\n"):
            piece = s.recv(65536)
            assert piece, got
            got += read(piece)
        return got
    until(b"* OK", bytes)
    s.sendall(f"a LOGIN {ann} {ann_pw}\r\n".encode())
    until(b"a OK", bytes)
    s.sendall(b"b COMPRESS DEFLATE\r\n")
    until(b"b OK", bytes)
    pack, unpack = zlib.compressobj(9, zlib.DEFLATED, -15), zlib.decompressobj(-15)
    say = lambda text: s.sendall(pack.compress(text) + pack.flush(zlib.Z_SYNC_FLUSH))
    say(b"c SELECT Work/Plans\r\n")
    assert b"* 2 EXISTS" in until(b"c OK", unpack.decompress)
    big = b"Subject: big\r\n\r\n" + b"words and more words\r\n" * 20000
    say(b"d APPEND Work/Plans {%d+}\r\n" % len(big) + big + b"\r\n")
    assert b"* 3 EXISTS" in until(b"d OK", unpack.decompress)
    say(b"e FETCH 3 BODY.PEEK[]\r\n")
    assert big in until(b"e OK", unpack.decompress)
print("all well")
