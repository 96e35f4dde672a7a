#!/usr/bin/env python3
"""What image/build.sh does with bytes, in Python's standard library and the same each time.

    pack.py board NAME KEY                  a value of board/NAME.toml, lists one a line
    pack.py modules TREE OUT NAME...        copies kernel modules and what they need, unpacked; OUT/modules has the order
    pack.py libraries ROOT OUT PROGRAM...   copies programs of an unpacked root with the libraries they need
    pack.py cpio FOLDER OUT                 an initramfs: root's, without times, with /dev/console
    pack.py update BOARD VERSION SYSTEM OUT an update: a header of 512 bytes and the system
    pack.py card OUT BOOT SYSTEM BOOT-MIB SLOT-MIB DATA-MIB    the card
"""
import hashlib
import lzma
import os
import re
import shutil
import stat
import struct
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
SECTOR = 512
MIB = 1 << 20
# The first partition begins here; before it are the partition table and, from 1 MiB on, the note about the systems.
GAP_MIB = 4
NOTE_AT = 2048 * SECTOR


def board(name, key):
    with open(HERE.parent / "board" / f"{name}.toml", "rb") as file:
        value = tomllib.load(file)
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, list):
        print("\n".join(value))
    elif isinstance(value, bool):
        print("yes" if value else "no")
    elif value is not None:
        print(value)


def module_name(path):
    return re.sub(r"\.ko(\.xz)?$", "", Path(path).name).replace("-", "_")


def modules(tree, out, *wanted):
    """Module and built-in names are the same with - and _; a name that is neither is an error."""
    (kernel,) = Path(tree).glob("usr/lib/modules/*")
    files = {module_name(path): path for path in sorted(kernel.rglob("*.ko*"))}
    built_in = {module_name(line) for line in (kernel / "modules.builtin").read_text().split()}
    target = Path(out) / "lib/modules" / kernel.name
    target.mkdir(parents=True, exist_ok=True)
    order, raw = [], {}

    def needs(name):
        if name not in raw:
            data = files[name].read_bytes()
            raw[name] = lzma.decompress(data) if files[name].suffix == ".xz" else data
        # The .modinfo section holds KEY=VALUE strings, each ended by a NUL.
        found = re.search(rb"\0depends=([^\0]*)\0", raw[name])
        return [word.replace("-", "_") for word in found.group(1).decode().split(",") if word] if found else []

    def take(name, by):
        if name in order or name in built_in:
            return
        if name not in files:
            sys.exit(f"error: the kernel has no module {name} ({by})")
        for need in needs(name):
            take(need, name)
        order.append(name)
        (target / f"{name}.ko").write_bytes(raw[name])

    for name in wanted:
        take(name.replace("-", "_"), "board")
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        if (kernel / name).exists():
            shutil.copyfile(kernel / name, target / name)
    (Path(out) / "modules").write_text("".join(f"{name}\n" for name in order))


def needed(path):
    """The DT_NEEDED names and the interpreter of a 32- or 64-bit little-endian ELF file."""
    data = Path(path).read_bytes()
    if data[:4] != b"\x7fELF" or data[5] != 1:
        return [], None
    wide = data[4] == 2
    phoff = struct.unpack_from("<Q" if wide else "<I", data, 32 if wide else 28)[0]
    phentsize, phnum = struct.unpack_from("<HH", data, 54 if wide else 42)
    segments = []
    for index in range(phnum):
        at = phoff + index * phentsize
        if wide:
            kind, _, offset, vaddr, _, size = struct.unpack_from("<IIQQQQ", data, at)
        else:
            kind, offset, vaddr, _, size = struct.unpack_from("<IIIII", data, at)
        segments.append((kind, offset, vaddr, size))
    place = lambda address: next((o + address - v for k, o, v, s in segments if k == 1 and v <= address < v + s), None)
    interpreter, names, strings = None, [], None
    for kind, offset, _, size in segments:
        if kind == 3:
            interpreter = data[offset:offset + size].rstrip(b"\0").decode()
        if kind == 2:
            entry = "<QQ" if wide else "<II"
            for tag, value in struct.iter_unpack(entry, data[offset:offset + size]):
                if tag == 5:
                    strings = place(value)
                if tag == 1:
                    names.append(value)
    text = lambda at: data[strings + at:data.index(b"\0", strings + at)].decode()
    return [text(at) for at in names], interpreter


def libraries(root, out, *programs):
    root, out = Path(root), Path(out)
    folders = [root / "usr/lib", root / "lib", *sorted(root.glob("usr/lib/*-linux-gnu*")), *sorted(root.glob("lib/*-linux-gnu*"))]
    done = set()

    def find(name):
        for folder in folders:
            if (folder / name).exists():
                return folder / name
        sys.exit(f"error: the library {name} is not in {root}")

    def take(path, name):
        wants, interpreter = needed(path.resolve())
        if interpreter and interpreter not in done:
            done.add(interpreter)
            copy(find(Path(interpreter).name), out / "usr" / interpreter.lstrip("/"))
        for want in wants:
            if want not in done:
                done.add(want)
                library = find(want)
                copy(library, out / "usr/lib" / want)
                take(library, want)

    def copy(source, target):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.resolve(), target)
        target.chmod(0o755)

    for program in programs:
        source = root / program if (root / program).exists() else root / program.replace("usr/", "", 1)
        copy(source, out / program)
        take(source, program)


def cpio(folder, out):
    with open(out, "wb") as file:
        number = 0

        def entry(name, mode, data=b"", major=0, minor=0):
            nonlocal number
            number += 1
            name = name.encode() + b"\0"
            fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name), 0)
            head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
            file.write(head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4))

        entry("dev", stat.S_IFDIR | 0o755)
        entry("dev/console", stat.S_IFCHR | 0o600, major=5, minor=1)
        for base, folders, files in os.walk(folder):
            folders.sort()
            for name in sorted(folders + files):
                path = os.path.join(base, name)
                inside, mode = os.path.relpath(path, folder), os.lstat(path).st_mode
                if inside == "dev":
                    continue
                if stat.S_ISLNK(mode):
                    entry(inside, stat.S_IFLNK | 0o777, os.readlink(path).encode())
                elif stat.S_ISDIR(mode):
                    entry(inside, stat.S_IFDIR | 0o755)
                else:
                    entry(inside, stat.S_IFREG | (0o755 if mode & 0o111 else 0o644), Path(path).read_bytes())
        entry("TRAILER!!!", 0)


def update(name, version, system, out):
    data = Path(system).read_bytes()
    head = f"pillarbox-update 1 {name} {version} {len(data)} {hashlib.sha256(data).hexdigest()}\n".encode()
    Path(out).write_bytes(head.ljust(SECTOR, b"\0") + data)


def card(out, boot, system, boot_mib, slot_mib, data_mib):
    boot_mib, slot_mib, data_mib = int(boot_mib), int(slot_mib), int(data_mib)
    if os.path.getsize(system) > slot_mib * MIB:
        sys.exit(f"error: the system has {os.path.getsize(system)} bytes, and a slot {slot_mib} MiB")
    parts, at = [], GAP_MIB
    for kind, mib in ((0x0C, boot_mib), (0x83, slot_mib), (0x83, slot_mib), (0x83, data_mib)):
        parts.append((kind, at * MIB // SECTOR, mib * MIB // SECTOR))
        at += mib
    table = bytearray(SECTOR)
    table[440:444] = b"PBOX"
    for index, (kind, start, size) in enumerate(parts):
        flag = 0x80 if index == 0 else 0
        # Heads and cylinders mean nothing here: the largest there are.
        struct.pack_into("<B3sB3sII", table, 446 + 16 * index, flag, b"\xfe\xff\xff", kind, b"\xfe\xff\xff", start, size)
    table[510:512] = b"\x55\xaa"
    line = "pillarbox-slots 1 a - 0 blank"
    note = f"{line} {hashlib.sha256(line.encode()).hexdigest()[:16]}\n".encode()
    with open(out, "wb") as file:
        file.truncate(at * MIB)
        file.write(table)
        for offset, path in ((None, None), (parts[0][1], boot), (parts[1][1], system)):
            if path is None:
                file.seek(NOTE_AT)
                file.write(note)
                continue
            file.seek(offset * SECTOR)
            with open(path, "rb") as source:
                while chunk := source.read(MIB):
                    # What is zero stays a hole.
                    if chunk.count(0) == len(chunk):
                        file.seek(len(chunk), 1)
                    else:
                        file.write(chunk)


if __name__ == "__main__":
    commands = {function.__name__: function for function in (board, modules, libraries, cpio, update, card)}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]](*sys.argv[2:])
