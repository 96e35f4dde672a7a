#!/usr/bin/env python3
"""Writes signature files of any size in ClamAV's formats, and files to scan with them.

    generate.py FOLDER HASHES PATTERNS

FOLDER/db/hashes.hdb and FOLDER/db/patterns.ndb are the signatures. FOLDER/planted has one file for each
of the first 20,000 patterns and for 1,000 of the digests: each must be found. FOLDER/mixed has what mail
has: text, HTML, pictures' noise, programs, zip archives; nothing in it may be found.
"""

import hashlib
import io
import os
import random
import sys
import zipfile

PLANTED_HASHES = 1000
PLANTED_PATTERNS = 20_000
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


def main():
    folder, hashes, patterns = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    draw = random.Random(7)
    for name in ("db", "planted", "mixed"):
        os.makedirs(os.path.join(folder, name), exist_ok=True)
    with open(os.path.join(folder, "db", "hashes.hdb"), "w") as out:
        for number in range(hashes):
            if number < PLANTED_HASHES:
                content = b"planted %d\n" % number
                with open(os.path.join(folder, "planted", f"h{number}"), "wb") as file:
                    file.write(content)
                out.write(f"{hashlib.md5(content).hexdigest()}:{len(content)}:Bench.Hash-{number}\n")
            else:
                out.write(f"{draw.randbytes(16).hex()}:{draw.randrange(1000, 5_000_000)}:Bench.Hash-{number}\n")
    with open(os.path.join(folder, "db", "patterns.ndb"), "w") as out:
        for number in range(patterns):
            digits, fitting = pattern(number, draw)
            out.write(f"Bench.Pattern-{number}:0:*:{digits}\n")
            if number < PLANTED_PATTERNS:
                with open(os.path.join(folder, "planted", f"p{number}"), "wb") as file:
                    file.write(b"." * (number % 997) + fitting + b"." * 50)
    words = [draw.randbytes(draw.randint(1, 6)).hex() for _ in range(5000)] + ["the", "and", "of", "a", "invoice"] * 500
    for number in range(MIXED_FILES):
        with open(os.path.join(folder, "mixed", f"m{number}"), "wb") as file:
            file.write(mixed(draw, words))


main()
