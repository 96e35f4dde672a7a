#!/usr/bin/env python3
"""Boots a card image in qemu and uses it from outside, as a person with a laptop and a network would.

Called by image/verify.sh. Each step prints a line; the first that fails prints the console and ends with 1. What the
kills show: the emulator is ended, so the guest loses what it had in memory, and the host's page cache stays. It is a
crash of the machine, not the torn sectors of a card (tests/power.rs tears those).
"""
import argparse
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests/clients"))
sys.path.insert(0, str(HERE))
import pack  # noqa: E402
from journey import Box  # noqa: E402

MIB = 1 << 20
CARD_MIB = 512
GUEST_MIB = 256
# Patience for one boot, in seconds: an emulator on a busy machine is slow.
BOOT_MAX = 420
SERVICES = {"smtp": 25, "submissions": 465, "imaps": 993, "pop3s": 995}
ADDRESS, PASSWORD, HOST = "ann@example.org", "a long password", "mail.example.org"
SETUP = f"""hostname = "{HOST}"
[account]
address = "{ADDRESS}"
password = "{PASSWORD}"
[settings.spam]
enabled = true
"""


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Machine:
    """An emulated machine with the card in it."""

    def __init__(self, options, card):
        self.options, self.card, self.process, self.boots = options, card, None, 0
        self.boot_offset = pack.GAP_MIB * MIB
        self.log = Path(options.work) / "console.log"
        self.log.write_text("")

    # -- the card in a laptop
    def mtools(self, *words, **more):
        words = [words[0], "-i", f"{self.card}@@{self.boot_offset}", *words[1:]]
        environment = dict(os.environ, MTOOLS_SKIP_CHECK="1")
        return subprocess.run(words, env=environment, check=True, capture_output=True, **more).stdout

    def put(self, name, text):
        path = Path(self.options.work) / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        self.mtools("mcopy", "-o", str(path), f"::{name}")

    def read(self, name):
        return self.mtools("mtype", f"::{name}").decode(errors="replace")

    def take(self, name):
        target = Path(self.options.work) / name
        self.mtools("mcopy", "-n", "-o", f"::{name}", str(target))
        return target

    # -- the machine
    def start(self, *more, words=""):
        self.ports = {name: free_port() for name in SERVICES}
        forward = "".join(f",hostfwd=tcp:127.0.0.1:{self.ports[name]}-:{port}" for name, port in SERVICES.items())
        kernel, initramfs = self.take("kernel8.img"), self.take("initramfs.zst")
        append = f"{self.read('cmdline.txt').strip()} {words}"
        self.before = len(self.log.read_text(errors="replace"))
        self.boots += 1
        command = ["qemu-system-aarch64", "-L", os.environ["PILLARBOX_QEMU_DATA"], "-display", "none", "-monitor", "none",
                   "-chardev", f"file,id=log,path={self.log},append=on", "-serial", "chardev:log",
                   "-kernel", str(kernel), "-initrd", str(initramfs), "-netdev", f"user,id=n0,restrict=on{forward}"]
        if self.options.machine == "virt":
            command += ["-M", "virt", "-cpu", "cortex-a53", "-smp", "2", "-m", str(GUEST_MIB), "-drive",
                        f"if=none,id=d0,format=raw,file={self.card}", "-device", "virtio-blk-device,drive=d0",
                        "-device", "virtio-net-device,netdev=n0", "-device", "virtio-rng-device",
                        "-device", "i6300esb", "-watchdog-action", "reset"]
        else:
            append = append.replace("console=ttyS1,115200", "console=ttyAMA0,115200 earlycon=pl011,0x3f201000")
            command += ["-M", "raspi3b", "-dtb", str(self.take("bcm2837-rpi-3-b.dtb")), "-drive",
                        f"if=sd,format=raw,file={self.card}", "-device", "usb-net,netdev=n0"]
        self.started = time.monotonic()
        self.process = subprocess.Popen([*command, "-append", append, *more], stdin=subprocess.DEVNULL)

    def console(self):
        """What was printed since the last start of the emulator."""
        return self.log.read_text(errors="replace")[self.before:]

    def wait_for(self, pattern, patience=BOOT_MAX, after=0):
        end = time.monotonic() + patience
        while time.monotonic() < end:
            found = re.search(pattern, self.console()[after:])
            if found:
                return found
            if self.process.poll() is not None:
                fail(self, f"the emulator ended while waiting for {pattern!r}")
            time.sleep(0.2)
        fail(self, f"no {pattern!r} on the console in {patience} s")

    def wait_for_greeting(self, patience=BOOT_MAX):
        """Seconds from power-on to the greeting as a client outside sees it."""
        end = time.monotonic() + patience
        while time.monotonic() < end:
            try:
                with socket.create_connection(("127.0.0.1", self.ports["smtp"]), timeout=5) as sock:
                    if sock.recv(100).startswith(b"220 "):
                        return time.monotonic() - self.started
            except OSError:
                pass
            if self.process.poll() is not None:
                fail(self, "the emulator ended before the server greeted")
            time.sleep(0.1)
        fail(self, f"no greeting in {patience} s")

    def kill(self):
        """The plug."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def box(self, ca):
        return Box(self.ports, str(ca), ADDRESS, PASSWORD, name=HOST, patience=120)


def fail(machine, text):
    machine.kill()
    print("\n".join(machine.console().splitlines()[-60:]), file=sys.stderr)
    sys.exit(f"FAILED: {text}")


def check(machine, fact, text):
    if not fact:
        fail(machine, text)
    print(f"ok: {text}", flush=True)


def first_start(machine):
    machine.put("pillarbox-setup.toml", "hostnam = \"mail.example.org\"\n")
    machine.start()
    machine.wait_for_greeting()
    machine.wait_for("Setup code: account ann@pillarbox.local, password ")
    report = machine.read("pillarbox-report.txt")
    said = "there is no section or setting `hostnam`; did you mean `hostname`?"
    check(machine, said in machine.console() and said in report, "a wrong setup file is explained on the console and in the report, and the box serves mail")
    check(machine, re.search(r"the data partition now has [34]\d\d MiB", machine.console()), "the data partition grew to the card")
    machine.wait_for("mail is served")
    time.sleep(2)
    machine.kill()
    machine.put("pillarbox-setup.toml", SETUP)
    machine.start(words="pillarbox.figures")
    seconds = machine.wait_for_greeting()
    machine.wait_for("mail is served")
    report, setup = machine.read("pillarbox-report.txt"), machine.read("pillarbox-setup.toml")
    check(machine, f"The account {ADDRESS} was added" in report, "the setup file is taken over, and the report says so")
    raw = Path(machine.card).open("rb").read(machine.boot_offset + 64 * MIB)
    check(machine, PASSWORD not in setup and PASSWORD.encode() not in raw, "the password is nowhere on the boot partition any more")
    box = machine.box(wait_for_ca(machine))
    box.journey()
    check(machine, True, "a letter by submission with TLS, read by IMAP and POP3")
    figures = machine.wait_for(r"figures: (\d+) +(\d+) +(\d+) +(\d+) +(\d+) +(\d+) kB; server VmRSS: (\d+) kB")
    total, used, free, shared, cache, available, rss = map(int, figures.groups())
    print(f"figures: greeting {seconds:.1f} s after power-on; guest memory {total} kB, used {used} kB, available {available} kB; server RSS {rss} kB")
    print(f"figures: {machine.wait_for(r'figures: (Pss.*)').group(1).strip()}")
    return box


def wait_for_ca(machine):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            path = machine.take("pillarbox-ca.crt")
            if b"END CERTIFICATE" in path.read_bytes():
                return path
        except subprocess.CalledProcessError:
            pass
        time.sleep(1)
    fail(machine, "the authority's certificate is not on the boot partition")


def kills(machine, rounds):
    ca = machine.take("pillarbox-ca.crt")
    acknowledged = []
    for number in range(rounds):
        box, stop = machine.box(ca), threading.Event()

        def load(who):
            count = 0
            while not stop.is_set():
                count += 1
                subject = f"load {number} {who} {count}"
                try:
                    box.submit(subject, "x" * random.randrange(10, 30_000))
                except Exception:
                    return
                acknowledged.append(subject)

        threads = [threading.Thread(target=load, args=(who,)) for who in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(random.uniform(4, 10))
        machine.kill()
        stop.set()
        for thread in threads:
            thread.join()
        machine.start()
        machine.wait_for_greeting()
        said = machine.wait_for(r"data partition: .*e2fsck says ([0-9]+)").group(1)
        there = machine.box(ca).subjects()
        lost = [subject for subject in acknowledged if subject not in there]
        doubled = [subject for subject in set(there) if subject.startswith("load ") and there.count(subject) > 1]
        check(machine, not lost and not doubled and said in ("0", "1"),
              f"killed under load: {len(acknowledged)} acknowledged letters there, {len(lost)} lost, {len(doubled)} doubled, e2fsck says {said}")


def fill(machine):
    """Mail until there is no room, then room again."""
    box, refused, sent = machine.box(machine.take("pillarbox-ca.crt")), None, 0
    large = random.Random(1).randbytes(9 * MIB).hex()
    lines = "\r\n".join(large[at:at + 70] for at in range(0, len(large), 70))
    for number in range(100):
        try:
            box.submit(f"large {number}", lines)
            sent += 1
        except Exception as error:
            refused = str(error)
            break
    check(machine, refused and ("452" in refused or "4.3.1" in refused), f"a full data partition refuses for the time being, after {sent} large letters: {refused}")
    imap = box.imap()
    imap.select("INBOX")
    _, found = imap.search(None, "SUBJECT", "large")
    imap.store(",".join(found[0].decode().split()), "+FLAGS", r"(\Deleted)")
    imap.expunge()
    imap.logout()
    end = time.monotonic() + 120
    while True:
        try:
            box.submit("room again", "x")
            break
        except Exception as error:
            if time.monotonic() > end:
                fail(machine, f"deleting made no room: {error}")
            time.sleep(2)
    check(machine, "room again" in box.subjects(), "deleting makes room, and mail goes on")


def updates(machine):
    """A good update by stick, one that cannot be read, one whose server does not serve."""
    work, system = Path(machine.options.work), Path(machine.options.system)
    board = re.search(r"^BOARD=(.*)$", (system / "etc/pillarbox-release").read_text(), re.M).group(1)
    ca = machine.take("pillarbox-ca.crt")

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

    tried("good", changed("good", release))
    machine.wait_for("trying the new system b")
    machine.wait_for("the new system b has proved itself")
    machine.wait_for_greeting()
    machine.box(ca).journey()
    check(machine, True, "an update by stick is written to the other system, proves itself with a letter, and serves the same mail")

    broken = work / "broken.squashfs"
    broken.write_bytes(random.Random(2).randbytes(MIB))
    tried("broken", broken)
    machine.wait_for("system a cannot be read")
    after = len(machine.console())
    machine.wait_for("mail is served", after=after)
    machine.box(ca).journey()
    check(machine, True, "an update that cannot be read: the box goes on with the system it had")

    tried("dumb", changed("dumb", dumb))
    machine.wait_for("trying the new system a")
    machine.wait_for("the new system a fails its self-test; going back")
    after = machine.console().index("fails its self-test")
    machine.wait_for("mail is served", after=after)
    machine.box(ca).journey()
    check(machine, True, "an update that does not serve mail fails its self-test, and the box falls back")
    machine.kill()
    machine.start()
    machine.wait_for_greeting()
    machine.box(ca).journey()
    check(machine, "trying" not in machine.console(), "after that it starts as before")


def main():
    parser = argparse.ArgumentParser()
    for name in ("image", "machine", "work", "system"):
        parser.add_argument(f"--{name}", required=True)
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
    try:
        first_start(machine)
        kills(machine, 1 if options.quick else 3)
        if options.machine == "virt":
            updates(machine)
            if not options.quick:
                fill(machine)
    finally:
        machine.kill()
    print(f"image {os.path.getsize(options.image) >> 20} MiB; {machine.boots} starts of {options.machine} in {time.monotonic() - began:.0f} s")
    print("the image works")


main()
