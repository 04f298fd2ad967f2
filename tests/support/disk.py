"""Disks that are full or cannot be written, for real: a file system of the test's own, or a limit on a process."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

FILLER = "filler"


class Disk:
    """A small file system in memory, mounted on `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        """Until not one byte fits any more."""
        with (self.folder / FILLER).open("ab", buffering=0) as file:
            size = 1 << 16
            while size:
                try:
                    written = file.write(bytes(size))
                except OSError:
                    written = 0
                if written < size:
                    size //= 2

    def free(self) -> None:
        (self.folder / FILLER).unlink()

    def remount(self, option: str) -> None:
        """`ro` or `rw`; the kernel refuses `ro` while a file is open for writing."""
        subprocess.run(["mount", "-o", f"remount,{option}", str(self.folder)], check=True)


@contextmanager
def small_disk(folder: Path, size: str = "3m") -> Iterator[Disk]:
    """Skips the test where mounting is not allowed."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this machine lets nobody mount: {done.stderr.strip()}")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def broken_card(folder: Path) -> Iterator[Path]:
    """An ext4 of its own on a loop device. Yields its folder; `break_card` makes it read-only under open files."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    image = folder / "card.img"
    image.write_bytes(bytes(8 << 20))
    card = folder / "card"
    card.mkdir()
    for command in (["mkfs.ext4", "-q", "-F", str(image)], ["mount", "-o", "loop", str(image), str(card)]):
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"this machine has no ext4 on a loop device: {error}")
    try:
        yield card
    finally:
        subprocess.run(["umount", "--lazy", str(card)], check=False)


def break_card(card: Path) -> None:
    """As after an error of the card: the kernel writes nothing any more, whatever is open."""
    subprocess.run(["mount", "-o", "remount,abort", str(card)], check=True)


def mend_card(card: Path) -> None:
    """What the next start of the machine does."""
    subprocess.run(["umount", str(card)], check=True)
    image = card.parent / "card.img"
    subprocess.run(["fsck.ext4", "-fy", str(image)], check=False, capture_output=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(card)], check=True)


@contextmanager
def no_room(pid: int = 0) -> Iterator[None]:
    """The process (0: this one) can write no file, as far as the kernel is concerned; needs no rights."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))
