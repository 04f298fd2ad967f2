"""Run as a camera's program inside the unit: tries what it should not be able to, and writes down what became of it."""

import ctypes
import errno
import json
import mmap
import os
import socket
import time
from pathlib import Path

STATE = Path("/var/lib/edge-face")


def outcome(attempt, *, named=True):
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno, "refused") if named else "refused"
    return "ok"


def write(folder):
    path = Path(folder, "probe")
    path.write_text("x")
    path.unlink()


def run_from_state():
    program = STATE / "program"
    program.write_bytes(Path("/bin/true").read_bytes())
    program.chmod(0o700)
    try:
        os.posix_spawn(str(program), [str(program)], {})
    finally:
        program.unlink()


def called(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), "refused")


libc = ctypes.CDLL(None, use_errno=True)
status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
processes = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
strangers = [pid for pid in processes if Path(f"/proc/{pid}").stat().st_uid != os.getuid()]
disks = [path for path in Path("/dev").iterdir() if path.is_block_device()]


def open_disk():
    """Its own node, as a container has none."""
    for disk in disks:
        os.close(os.open(disk, os.O_RDONLY))
        return
    os.mknod(STATE / "disk", 0o600 | 0o060000, os.makedev(8, 0))


found = {
    "write state": outcome(lambda: write(STATE)),
    "write /etc": outcome(lambda: write("/etc")),
    "write /opt": outcome(lambda: write("/opt/edge-face")),
    "write /usr": outcome(lambda: write("/usr/local/lib")),
    "write /var/tmp": outcome(lambda: write("/var/tmp")),
    "read home": outcome(lambda: Path("/home/katya/diary").read_text(), named=False),
    "read shadow": outcome(lambda: Path("/etc/shadow").read_text()),
    "raw socket": outcome(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1), named=False),
    "packet socket": outcome(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW), named=False),
    "capabilities": status["CapBnd"],
    "no new privileges": status["NoNewPrivs"],
    "mount": outcome(lambda: called(libc.mount(b"none", b"/tmp", b"tmpfs", 0, None)), named=False),
    "unshare": outcome(lambda: called(libc.unshare(0x10000000)), named=False),
    "memory that can be written and run": outcome(
        lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC), named=False
    ),
    "run from state": outcome(run_from_state),
    "kernel settings": outcome(lambda: Path("/proc/sys/kernel/hostname").write_text("x")),
    "set clock": outcome(lambda: time.clock_settime(time.CLOCK_REALTIME, time.time())),
    "disk": outcome(open_disk, named=False),
    "other processes": "visible" if strangers else "hidden",
}
half = STATE / "probe.json.new"
half.write_text(json.dumps(found))
half.rename(STATE / "probe.json")
time.sleep(3600)
