#!/usr/bin/env python3
"""Writes signature files of any size in ClamAV's formats, and files to scan with them.

    generate.py FOLDER HASHES PATTERNS

FOLDER/db has the signatures: digests in hashes.hdb (MD5) and hashes.hsb (SHA-256, one in ten), patterns in
patterns.ndb, and one for EICAR's test file. FOLDER/planted has one file for each pattern and for 1,000 of the
digests: each must be found, by the name that FOLDER/planted.txt has. FOLDER/mixed has what mail has: text, HTML,
pictures' noise, programs, zip archives; nothing in it may be found. FOLDER/containers has EICAR's file in what
Python's library can write.
"""

import base64
import binascii
import bz2
import gzip
import hashlib
import io
import lzma
import os
import quopri
import random
import sys
import tarfile
import zipfile
import zlib

PLANTED_HASHES = 1000
# In two halves, so that scanners of this file find nothing.
EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR" + b"-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
MIXED_FILES = 120
MIXED_BYTES = 400_000


def pattern(number, draw):
    """A pattern as hexadecimal digits, and bytes that fit it."""
    first, second = draw.randbytes(draw.randint(10, 40)), draw.randbytes(draw.randint(8, 20))
    kind = number % 10
    if kind < 6:
        return (first + second).hex(), first + second
    if kind == 6:
        return f"{first.hex()}????{second.hex()}", first + b"xy" + second
    if kind == 7:
        return f"{first.hex()}{{2-10}}{second.hex()}", first + b"12345" + second
    if kind == 8:
        return f"{first.hex()}*{second.hex()}", first + b"-" * 300 + second
    return f"{first.hex()}(aa|bb|cc){second.hex()}", first + b"\xbb" + second


def mixed(draw, words):
    """A file as attachments are."""
    kind = draw.randrange(5)
    if kind == 0:
        return draw.randbytes(MIXED_BYTES)
    text = " ".join(draw.choices(words, k=MIXED_BYTES // 7)).encode()
    if kind == 1:
        return text
    if kind == 2:
        return b"<html><body>" + text + b"</body></html>"
    if kind == 3:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("text.txt", text)
            archive.writestr("noise.bin", draw.randbytes(MIXED_BYTES // 2))
        return packed.getvalue()
    program = open("/bin/bash", "rb").read()
    start = draw.randrange(len(program) - MIXED_BYTES // 2)
    return b"\x7fELF" + program[start : start + MIXED_BYTES // 2]


def archive(method, names=("eicar.com",), content=EICAR):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as out:
        for name in names:
            out.writestr(name, content)
    return packed.getvalue()


def tar(mode):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as out:
        entry = tarfile.TarInfo("eicar.com")
        entry.size = len(EICAR)
        out.addfile(entry, io.BytesIO(EICAR))
    return packed.getvalue()


def letter(encoding, body, kind="application/octet-stream", name="eicar.com"):
    head = "From: ann@a.test\r\nTo: bob@b.test\r\nSubject: x\r\nDate: Mon, 2 Mar 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\n"
    head += 'Content-Type: multipart/mixed; boundary="q"\r\n\r\n--q\r\nContent-Type: text/plain\r\n\r\nhello\r\n--q\r\n'
    part = f'Content-Type: {kind}; name="{name}"\r\nContent-Disposition: attachment; filename="{name}"\r\n'
    part += f"Content-Transfer-Encoding: {encoding}\r\n\r\n"
    return (head + part).encode() + body + b"\r\n--q--\r\n"


def pdf(filters, stream):
    return b"%%PDF-1.4\n1 0 obj\n<</Length %d/Filter[%s]>>\nstream\n%s\nendstream\nendobj\ntrailer<</Root 1 0 R>>\n%%%%EOF\n" % (
        len(stream), filters, stream)


def containers():
    """EICAR's file in things, by name."""
    uu = b"begin 644 eicar.com\n" + b"".join(
        binascii.b2a_uu(EICAR[at : at + 45]) for at in range(0, len(EICAR), 45)) + b"`\nend\n"
    zipped = archive(zipfile.ZIP_DEFLATED)
    coded = base64.encodebytes(EICAR).replace(b"\n", b"\r\n")
    zipped_coded = base64.encodebytes(zipped).replace(b"\n", b"\r\n")
    inner = letter("base64", coded)
    return {
        "plain": EICAR,
        "zip-stored": archive(zipfile.ZIP_STORED),
        "zip-deflate": zipped,
        "zip-bzip2": archive(zipfile.ZIP_BZIP2),
        "zip-lzma": archive(zipfile.ZIP_LZMA),
        "zip-in-zip": archive(zipfile.ZIP_DEFLATED, ["inner.zip"], zipped),
        "zip-without-directory": zipped[: zipped.rindex(b"PK\x01\x02")],
        "zip-cut": zipped[:-10],
        "gzip": gzip.compress(EICAR),
        "bzip2": bz2.compress(EICAR),
        "xz": lzma.compress(EICAR),
        "lzma": lzma.compress(EICAR, lzma.FORMAT_ALONE),
        "tar": tar("w"),
        "tar-gz": tar("w:gz"),
        "tar-bz2": tar("w:bz2"),
        "tar-xz": tar("w:xz"),
        "mail-base64": inner,
        "mail-quoted-printable": letter("quoted-printable", quopri.encodestring(EICAR, quotetabs=True)),
        "mail-7bit": letter("7bit", EICAR),
        "mail-uuencode": letter("x-uuencode", uu.replace(b"\n", b"\r\n")),
        "mail-zip": letter("base64", zipped_coded, "application/zip", "a.zip"),
        "mail-in-mail": letter("7bit", inner.replace(b'"q"', b'"r"').replace(b"--q", b"--r"), "message/rfc822", "a.eml"),
        "mail-lies-7bit": letter("7bit", zipped_coded, "application/zip", "a.zip"),
        "uuencode": b"Dear all,\n\n" + uu,
        "pdf-flate": pdf(b"/FlateDecode", zlib.compress(EICAR)),
        "pdf-hex": pdf(b"/ASCIIHexDecode", EICAR.hex().encode() + b">"),
        "pdf-85-flate": pdf(b"/ASCII85Decode/FlateDecode", base64.a85encode(zlib.compress(EICAR)) + b"~>"),
        "html-data": b'<html><body><a href="data:application/zip;base64,' + base64.b64encode(zipped) + b'">x</a></body></html>',
    }


def main():
    folder, hashes, patterns = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    draw = random.Random(7)
    for name in ("db", "planted", "mixed", "containers"):
        os.makedirs(os.path.join(folder, name), exist_ok=True)

    def write(place, name, content):
        with open(os.path.join(folder, place, name), "wb") as file:
            file.write(content)

    planted = open(os.path.join(folder, "planted.tmp"), "w")
    db = {kind: open(os.path.join(folder, "db", kind), "w") for kind in ("hashes.hdb", "hashes.hsb", "patterns.ndb")}
    for number in range(hashes):
        kind, digest = ("hashes.hsb", hashlib.sha256) if number % 10 == 9 else ("hashes.hdb", hashlib.md5)
        if number < PLANTED_HASHES:
            content = b"planted %d\n" % number
            write("planted", f"h{number}", content)
            planted.write(f"h{number} Bench.Hash-{number}\n")
            digits, size = digest(content).hexdigest(), len(content)
        else:
            digits, size = draw.randbytes(digest().digest_size).hex(), draw.randrange(1000, 5_000_000)
        db[kind].write(f"{digits}:{size}:Bench.Hash-{number}\n")
    db["patterns.ndb"].write(f"Bench.Eicar:0:*:{EICAR.hex()}\n")
    for number in range(patterns):
        digits, fitting = pattern(number, draw)
        db["patterns.ndb"].write(f"Bench.Pattern-{number}:0:*:{digits}\n")
        write("planted", f"p{number}", b"." * (number % 997) + fitting + b"." * 50)
        planted.write(f"p{number} Bench.Pattern-{number}\n")
    words = [draw.randbytes(draw.randint(1, 6)).hex() for _ in range(5000)] + ["the", "and", "of", "a", "invoice"] * 500
    for number in range(MIXED_FILES):
        write("mixed", f"m{number}", mixed(draw, words))
    for name, content in containers().items():
        write("containers", name, content)
    planted.close()
    for file in db.values():
        file.close()
    # Last: whoever finds it knows that all is there.
    os.rename(os.path.join(folder, "planted.tmp"), os.path.join(folder, "planted.txt"))


main()
