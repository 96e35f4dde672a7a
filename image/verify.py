#!/usr/bin/env python3
"""Boots a card image in qemu and uses it from outside, as a person with a laptop and a network would.

Called by image/verify.sh. Each step prints a line; the first that fails prints the console and ends with 1. What the
kills show: the emulator is ended, so the guest loses what it had in memory, and the host's page cache stays. It is a
crash of the machine, not the torn sectors of a card (tests/power.rs tears those).
"""
import argparse
import base64
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

from machine import ADDRESS, ANSWER_MAX, CARD_MIB, HOST, MIB, PASSWORD, Failed, Machine, load, pack

SETUP = f"""hostname = "{HOST}"
[account]
address = "{ADDRESS}"
password = "{PASSWORD}"
[settings.spam]
enabled = true
"""
# One letter of these fills the data partition in some ten; it is below `message-max-bytes`.
LARGE_BYTES = 12 * MIB
LARGE_MAX = 60


def check(fact, text):
    if not fact:
        raise Failed(text)
    print(f"ok: {text}", flush=True)


def journey(machine, ca):
    """A letter through all protocols; a server that has just started may need a moment more."""
    machine.box(ca).journey()


def first_start(machine):
    """A wrong setup file, then a good one. Returns the certificate of the box's authority."""
    machine.put("pillarbox-setup.toml", "hostnam = \"mail.example.org\"\n")
    machine.start()
    machine.wait_for_greeting()
    machine.wait_for("Setup code: account ann@pillarbox.local, password ")
    report = machine.read("pillarbox-report.txt")
    said = "there is no section or setting `hostnam`; did you mean `hostname`?"
    check(said in machine.console() and said in report,
          "a wrong setup file is explained on the console and in the report, and the box serves mail")
    grown = re.search(r"the data partition now has ([0-9]+) MiB", machine.console())
    check(grown and int(grown.group(1)) > CARD_MIB // 2, "the data partition grew to the card")
    machine.wait_for("mail is served")
    time.sleep(2)
    machine.kill()
    machine.put("pillarbox-setup.toml", SETUP)
    machine.start(words="pillarbox.figures")
    seconds = machine.wait_for_greeting()
    machine.wait_for("mail is served")
    report, setup = machine.read("pillarbox-report.txt"), machine.read("pillarbox-setup.toml")
    check(f"The account {ADDRESS} was added" in report, "the setup file is taken over, and the report says so")
    check(PASSWORD not in setup and PASSWORD.encode() not in machine.boot_partition(),
          "the password is nowhere on the boot partition any more")
    ca = wait_for_ca(machine)
    # Before anybody has connected: what the box takes when idle.
    figures = machine.wait_for(r"figures: (\d+) +(\d+) +(\d+) +(\d+) +(\d+) +(\d+) kB; server VmRSS: (\d+) kB")
    total, used, _, _, _, available, rss = map(int, figures.groups())
    print(f"figures: greeting {seconds}; guest memory {total} kB, used {used} kB, "
          f"available {available} kB; server RSS {rss} kB")
    print(f"figures: {machine.wait_for(r'figures: (Pss.*)').group(1).strip()}", flush=True)
    journey(machine, ca)
    check(True, "a letter by submission with TLS, read by IMAP and POP3")
    return ca


def wait_for_ca(machine):
    end = time.monotonic() + ANSWER_MAX
    while time.monotonic() < end:
        try:
            path = machine.take("pillarbox-ca.crt")
            if b"END CERTIFICATE" in path.read_bytes():
                # Not where the next look writes.
                return shutil.copyfile(path, path.with_name("ca.crt"))
        except subprocess.CalledProcessError:
            pass
        time.sleep(1)
    raise Failed("the authority's certificate is not on the boot partition")


def kills(machine, ca, rounds):
    """The emulator is killed while three clients send; what was acknowledged is there afterwards."""
    acknowledged = []
    for number in range(rounds):
        box, stop = machine.box(ca), threading.Event()

        def send(who):
            count = 0
            while not stop.is_set():
                count += 1
                subject = f"load {number} {who} {count}"
                try:
                    box.submit(subject, "x" * random.randrange(10, 30_000))
                except Exception:
                    return
                acknowledged.append(subject)

        before = len(acknowledged)
        threads = [threading.Thread(target=send, args=(who,)) for who in range(3)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + ANSWER_MAX
        while len(acknowledged) < before + 3 and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(random.uniform(0, 6))
        machine.kill()
        stop.set()
        for thread in threads:
            thread.join()
        check(len(acknowledged) > before, f"letters were acknowledged before the kill: {len(acknowledged) - before}")
        found = machine.look_into_data()
        machine.start()
        seconds = machine.wait_for_greeting()
        said = machine.wait_for(r"data partition: .*e2fsck says ([0-9]+)").group(1)
        there = machine.box(ca).subjects()
        lost = [subject for subject in acknowledged if subject not in there]
        doubled = [subject for subject in set(there) if subject.startswith("load ") and there.count(subject) > 1]
        check(not lost and not doubled and said in ("0", "1"),
              f"killed under load: {len(acknowledged)} acknowledged letters there, {len(lost)} lost, {len(doubled)} doubled; "
              f"from outside {found}; e2fsck in the box says {said}; greeting {seconds}")


def fill(machine, ca):
    """Mail until there is no room, then room again."""
    box, refused, sent = machine.box(ca), None, 0
    draw = random.Random(1)
    for number in range(LARGE_MAX):
        # Noise does not become smaller when it is packed.
        lines = base64.encodebytes(draw.randbytes(LARGE_BYTES)).decode().replace("\n", "\r\n")
        try:
            box.submit(f"large {number}", lines)
            sent += 1
        except Exception as error:
            refused = str(error)
            break
    check(sent > 1 and refused and ("452" in refused or "4.3.1" in refused),
          f"a full data partition refuses for the time being, after {sent} large letters: {refused}")
    machine.kill()
    machine.start()
    machine.wait_for_greeting()
    check(machine.box(ca).subjects().count("large 0") == 1, "a box with a full data partition starts, and its mail is read")
    box = machine.box(ca)
    imap = box.imap()
    imap.select("INBOX")
    _, found = imap.search(None, "SUBJECT", "large")
    imap.store(",".join(found[0].decode().split()), "+FLAGS", r"(\Deleted)")
    imap.expunge()
    imap.logout()
    end = time.monotonic() + ANSWER_MAX
    while True:
        try:
            box.submit("room again", "x")
            break
        except Exception as error:
            if time.monotonic() > end:
                raise Failed(f"deleting made no room: {error}") from error
            time.sleep(2)
    check("room again" in box.subjects(), "deleting makes room, and mail goes on")


def updates(machine, ca):
    """A good update by stick, one that cannot be read, one whose server does not serve."""
    work, system = Path(machine.options.work), Path(machine.options.system)
    board = re.search(r"^BOARD=(.*)$", (system / "etc/pillarbox-release").read_text(), re.M).group(1)

    def stick(name, squashfs):
        # A FAT file system with one file on it, as a stick has it.
        image = work / f"{name}.stick"
        with open(image, "wb") as file:
            file.truncate(40 * MIB)
        subprocess.run(["mkfs.vfat", "-n", "STICK", str(image)], check=True, capture_output=True)
        pack.update(board, name, str(squashfs), str(work / "pillarbox.update"))
        subprocess.run(["mcopy", "-i", str(image), str(work / "pillarbox.update"), "::"], check=True,
                       env=dict(os.environ, MTOOLS_SKIP_CHECK="1"))
        drive = ["-device", "virtio-blk-device,drive=d1"]
        return ["-drive", f"if=none,id=d1,format=raw,file={image},readonly=on", *drive]

    def packed(name, folder):
        out = work / f"{name}.squashfs"
        out.unlink(missing_ok=True)
        subprocess.run(["mksquashfs", str(folder), str(out), "-noappend", "-all-root", "-comp", "zstd", "-no-progress"],
                       check=True, capture_output=True)
        shutil.rmtree(folder)
        return out

    def changed(name, change):
        folder = work / f"{name}.system"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(system, folder, symlinks=True)
        change(folder)
        return packed(name, folder)

    def release(folder):
        path = folder / "etc/pillarbox-release"
        path.write_text(re.sub("VERSION=.*", "VERSION=9.9.9", path.read_text()))

    def dumb(folder):
        (folder / "usr/bin/pillarbox").unlink()
        (folder / "usr/bin/pillarbox").symlink_to("busybox")

    def tried(name, squashfs):
        machine.kill()
        machine.start(*stick(name, squashfs))
        machine.wait_for(f"update {name} is tried now")

    # Each of these starts again by itself: once into the new system, once more where that does not prove itself.
    tried("good", changed("good", release))
    machine.wait_for("trying the new system b", restarts=1)
    machine.wait_for("the new system b has proved itself", restarts=1)
    machine.wait_for_greeting(restarts=1)
    journey(machine, ca)
    check(True, "an update by stick is written to the other system, proves itself with a letter, and serves the same mail")

    broken = work / "broken.squashfs"
    broken.write_bytes(random.Random(2).randbytes(MIB))
    tried("broken", broken)
    machine.wait_for("system a cannot be read", restarts=1)
    after = len(machine.console())
    machine.wait_for("mail is served", after=after, restarts=1)
    journey(machine, ca)
    check(True, "an update that cannot be read: the box goes on with the system it had")

    tried("dumb", changed("dumb", dumb))
    machine.wait_for("trying the new system a", restarts=1)
    machine.wait_for("the new system a fails its self-test; going back", restarts=2)
    after = machine.console().index("fails its self-test")
    machine.wait_for("mail is served", after=after, restarts=2)
    journey(machine, ca)
    check(True, "an update that does not serve mail fails its self-test, and the box falls back")
    machine.kill()
    machine.start()
    machine.wait_for_greeting()
    journey(machine, ca)
    check("trying" not in machine.console(), "after that it starts as before")


def main():
    parser = argparse.ArgumentParser()
    for name in ("image", "machine", "work", "system"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--program", help="a pillarbox that runs here, to check the store on the card from outside")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    work = Path(options.work)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    card = work / "card.img"
    shutil.copyfile(options.image, card)
    os.truncate(card, CARD_MIB * MIB)
    began = time.monotonic()
    machine = Machine(options, card)

    def trial(name, *words):
        at = time.monotonic()
        name(machine, *words)
        print(f"-- {name.__name__}: {time.monotonic() - at:.0f} s ({load()})", flush=True)

    try:
        at = time.monotonic()
        ca = first_start(machine)
        print(f"-- first_start: {time.monotonic() - at:.0f} s ({load()})", flush=True)
        trial(kills, ca, 1 if options.quick else 3)
        if options.machine == "virt":
            trial(updates, ca)
            if not options.quick:
                trial(fill, ca)
        machine.kill()
        check(True, f"at the end {machine.look_into_data()}")
    except Exception as error:
        machine.kill()
        print(f"the console's last lines ({machine.log} has all):\n{machine.tail()}", file=sys.stderr)
        if not isinstance(error, (Failed, AssertionError, OSError)):
            raise
        sys.exit(f"FAILED: {error or type(error).__name__}")
    finally:
        machine.kill()
    print(f"image {os.path.getsize(options.image) >> 20} MiB; {machine.starts} starts of {options.machine} in {time.monotonic() - began:.0f} s")
    print("the image works")


main()
