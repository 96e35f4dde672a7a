"""Verifies our signatures with dkimpy.

Standard input: JSON with "records" (name to TXT) and "messages" (name, base64). Says "all well" when
every signature of every message verifies, and none of one with a byte changed.
"""

import base64
import json
import sys

import dkim

task = json.load(sys.stdin)
records = {name.encode() + b".": text.encode() for name, text in task["records"].items()}


def ask(name, timeout=5):
    return records.get(name if isinstance(name, bytes) else name.encode())


def verify(message, index):
    return dkim.DKIM(message).verify(idx=index, dnsfunc=ask)


def refused(message, index):
    try:
        return not verify(message, index)
    except dkim.DKIMException:
        return True


faults = []
for name, text in task["messages"]:
    message = base64.b64decode(text)
    header = message.split(b"\r\n\r\n", 1)[0]
    count = header.count(b"DKIM-Signature: ")
    if count != 2:
        faults.append(f"{name}: {count} signatures")
    for index in range(count):
        try:
            if not verify(message, index):
                faults.append(f"{name}: signature {index} does not verify")
            if not refused(message.replace(b"\r\nSubject: hello", b"\r\nSubject: other"), index):
                faults.append(f"{name}: signature {index} verifies with another subject")
            for field in [b"Subject: added\r\n", b"From: eve@e.test\r\n"]:
                if not refused(field + message, index):
                    faults.append(f"{name}: signature {index} verifies with another field")
            if not refused(message + b"more\r\n", index):
                faults.append(f"{name}: signature {index} verifies with more text")
        except dkim.DKIMException as error:
            faults.append(f"{name}: signature {index}: {error!r}")
print("\n".join(faults) if faults else "all well")
sys.exit(1 if faults else 0)
