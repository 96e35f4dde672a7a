"""A card in an emulated machine (qemu), and the same card in a laptop (mtools, e2fsck): what image/verify.py stands on.

A wait does not count what the emulator spent waiting for a processor of this computer: on a busy one it is slow, and
that is no fault of the image. Every wait ends all the same, and at once where a kernel has given up, a box says that it
keeps no mail, or it starts again when nobody asked for it.
"""
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests/clients"))
import pack  # noqa: E402
from journey import Box  # noqa: E402

MIB = 1 << 20
# A power of two, as the emulated Raspberry Pi wants it; small, so that it can be filled.
CARD_MIB = 256
GUEST_MIB = 256
# The most seconds for one start that count, and the most there are.
BOOT_MAX = 300
WALL_MAX = 3600
# The most seconds for one answer of a server that runs.
ANSWER_MAX = 900
# Lines of the console that a failure shows.
TAIL = 60
SERVICES = {"smtp": 25, "submissions": 465, "imaps": 993, "pop3s": 995}
# After these words nothing more comes of a start.
DEAD_ENDS = r"Kernel panic.*|pillarbox: NO MAIL:.*|pillarbox: starting again in 30 seconds"
# One of these is on the console for each start.
STARTED = r"pillarbox: data partition: .*e2fsck says"
ADDRESS, PASSWORD, HOST = "ann@example.org", "a long password", "mail.example.org"


class Failed(Exception):
    """What was tried is not so."""


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def load():
    """How much else this computer has to do."""
    return f"load average {os.getloadavg()[0]:.1f}"


class Machine:
    """An emulated machine with the card in it; `options` are those of image/verify.py."""

    def __init__(self, options, card):
        self.options, self.card, self.process, self.starts = options, card, None, 0
        self.work = Path(options.work)
        self.log = self.work / "console.log"
        self.log.write_text("")
        self.before = 0

    # -- the card in a laptop
    def mtools(self, *words, **more):
        words = [words[0], "-i", f"{self.card}@@{pack.GAP_MIB * MIB}", *words[1:]]
        environment = dict(os.environ, MTOOLS_SKIP_CHECK="1")
        return subprocess.run(words, env=environment, check=True, capture_output=True, **more).stdout

    def put(self, name, text):
        path = self.work / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        self.mtools("mcopy", "-o", str(path), f"::{name}")

    def read(self, name):
        return self.mtools("mtype", f"::{name}").decode(errors="replace")

    def take(self, name):
        target = self.work / name
        self.mtools("mcopy", "-n", "-o", f"::{name}", str(target))
        return target

    def boot_partition(self):
        """Its bytes."""
        with open(self.card, "rb") as file:
            file.seek(446 + 8)
            start, size = struct.unpack("<II", file.read(8))
            file.seek(start * pack.SECTOR)
            return file.read(size * pack.SECTOR)

    def look_into_data(self):
        """Checks a copy of the data partition as it lies on the card: the file system after its journal was played,
        and the store in it by `pillarbox check-store --deep`, if there is a program for it."""
        copy, folder = self.work / "data.ext4", self.work / "data"
        with open(self.card, "rb") as card, open(copy, "wb") as out:
            card.seek(446 + 3 * 16 + 8)
            start, size = struct.unpack("<II", card.read(8))
            card.seek(start * pack.SECTOR)
            left = size * pack.SECTOR
            while left > 0 and (chunk := card.read(min(MIB, left))):
                # What is zero stays a hole.
                out.write(chunk) if chunk.count(0) != len(chunk) else out.seek(len(chunk), 1)
                left -= len(chunk)
            out.truncate(size * pack.SECTOR)
        # Without -f it plays the journal, takes the superblock's sums from the groups' (a kernel writes them when it
        # unmounts) and looks no further: the check that follows finds what is wrong, and mends nothing.
        done = subprocess.run(["e2fsck", "-p", str(copy)], capture_output=True, text=True)
        if done.returncode > 1 or "recovering journal" not in done.stdout:
            raise Failed(f"the file system's journal cannot be played: {done.stdout}")
        done = subprocess.run(["e2fsck", "-f", "-n", str(copy)], capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"the file system is not clean: {done.stdout}")
        said = "the file system is clean"
        if self.options.program:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            subprocess.run(["debugfs", "-R", f"rdump /mail {folder}", str(copy)], check=True, capture_output=True)
            words = [self.options.program, "check-store", "--deep", "--data", str(folder / "mail")]
            done = subprocess.run(words, capture_output=True, text=True, timeout=ANSWER_MAX)
            if done.returncode or "all is well" not in done.stdout:
                raise Failed(f"the store is not whole: {done.stdout}{done.stderr}")
            said += ", the store whole"
            shutil.rmtree(folder)
        copy.unlink()
        return said

    # -- the machine
    def start(self, *more, words=""):
        self.ports = {name: free_port() for name in SERVICES}
        forward = "".join(f",hostfwd=tcp:127.0.0.1:{self.ports[name]}-:{port}" for name, port in SERVICES.items())
        kernel, initramfs = self.take("kernel8.img"), self.take("initramfs.zst")
        append = f"{self.read('cmdline.txt').strip()} {words}".strip()
        self.before = len(self.log.read_text(errors="replace"))
        self.starts += 1
        command = ["qemu-system-aarch64", "-L", os.environ["PILLARBOX_QEMU_DATA"], "-display", "none", "-monitor", "none",
                   "-accel", "tcg,thread=multi", "-chardev", f"file,id=log,path={self.log},append=on",
                   "-kernel", str(kernel), "-initrd", str(initramfs), "-netdev", f"user,id=n0,restrict=on{forward}"]
        if self.options.machine == "virt":
            command += ["-M", "virt", "-cpu", "cortex-a53", "-smp", "2", "-m", str(GUEST_MIB), "-serial", "chardev:log",
                        "-drive", f"if=none,id=d0,format=raw,file={self.card}", "-device", "virtio-blk-device,drive=d0",
                        "-device", "virtio-net-device,netdev=n0", "-device", "virtio-rng-device",
                        "-device", "i6300esb", "-watchdog-action", "reset"]
        else:
            # The first serial line goes to Bluetooth on this board, the second (ttyS1) to the pins. qemu's watchdog of it
            # does not wait: it resets the board as soon as it is set.
            append += " pillarbox.watchdog=off"
            command += ["-M", "raspi3b", "-dtb", str(self.take("bcm2837-rpi-3-b.dtb")), "-serial", "null", "-serial",
                        "chardev:log", "-drive", f"if=sd,format=raw,file={self.card}", "-device", "usb-net,netdev=n0"]
        self.started = time.monotonic()
        self.process = subprocess.Popen([*command, "-append", append, *more], stdin=subprocess.DEVNULL)

    def console(self):
        """What was printed since the last start of the emulator."""
        return self.log.read_text(errors="replace")[self.before:]

    def tail(self):
        return "\n".join(self.console().splitlines()[-TAIL:])

    def starved(self):
        """Seconds for which the emulator's busiest thread could have run and did not: others had the processors."""
        most = 0
        try:
            for task in Path(f"/proc/{self.process.pid}/task").iterdir():
                # Nanoseconds on a processor, nanoseconds of waiting for one, how often (the kernel's sched-stats).
                most = max(most, int((task / "schedstat").read_text().split()[1]))
        except (OSError, IndexError, ValueError):
            pass
        return most / 1e9

    def waiting(self, what, patience, restarts, after=0):
        """Yields until what is waited for is there (the caller leaves) or cannot come any more."""
        began, starved = time.monotonic(), self.starved()
        while True:
            yield
            text = self.console()
            if self.process.poll() is not None:
                raise Failed(f"the emulator ended while waiting for {what}")
            if dead := re.search(DEAD_ENDS, text[after:]):
                raise Failed(f"waiting for {what}, the box said: {dead.group()}")
            starts = len(re.findall(STARTED, text))
            if starts > 1 + restarts:
                raise Failed(f"waiting for {what}, the box started {starts} times: its watchdog, or a kernel that fell?")
            passed = time.monotonic() - began
            if passed - (self.starved() - starved) > patience or passed > WALL_MAX:
                raise Failed(f"no {what} in {passed:.0f} s, for {self.starved() - starved:.0f} s of which others had the processors")
            time.sleep(0.2)

    def wait_for(self, pattern, patience=BOOT_MAX, after=0, restarts=0):
        """Waits for a line of the console; `restarts` is how often the box may start by itself meanwhile."""
        for _ in self.waiting(f"{pattern!r} on the console", patience, restarts, after):
            if found := re.search(pattern, self.console()[after:]):
                return found

    def wait_for_greeting(self, patience=BOOT_MAX, restarts=0):
        """Waits for the greeting as a client outside sees it; tells after how many seconds it came."""
        for _ in self.waiting("SMTP greeting", patience, restarts):
            try:
                # qemu itself takes the connection; what counts is that words come.
                with socket.create_connection(("127.0.0.1", self.ports["smtp"]), timeout=5) as sock:
                    if sock.recv(100).startswith(b"220 "):
                        seconds = time.monotonic() - self.started
                        return f"{seconds:.1f} s after power-on ({self.starved():.1f} s of them starved, {load()})"
            except OSError:
                pass

    def kill(self):
        """The plug."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def box(self, ca):
        return Box(self.ports, str(ca), ADDRESS, PASSWORD, name=HOST, patience=ANSWER_MAX)
