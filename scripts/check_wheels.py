"""Prove that nothing in a lock is compiled on a gate: every locked package has a wheel that the oldest board can load.

The boards: aarch64 with glibc 2.27 (a Jetson Nano with JetPack 4, served by uv's own Python 3.11; newer boards load the
same wheels, or are given newer ones) and x86-64 with glibc 2.28. `pip` itself is asked which wheel it would install for
each target, and the answer's hash must be in the lock. Started by `scripts/check-wheels`.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent

# The one package without a wheel: it is pure Python (weights and a few paths), so its "build" only copies files.
PURE_SDISTS = {"face-recognition-models"}


@dataclass(frozen=True)
class Target:
    """A kind of board: its machine and the newest glibc 2.x that its wheels may ask for."""

    machine: str
    glibc_minor: int

    @property
    def title(self) -> str:
        return f"{self.machine}, glibc 2.{self.glibc_minor}"

    def platforms(self) -> list[str]:
        """The platform tags that such a board loads, newest first."""
        tags = [f"manylinux_2_{minor}_{self.machine}" for minor in range(self.glibc_minor, 4, -1)]
        tags.append(f"manylinux2014_{self.machine}")
        if self.machine == "x86_64":
            tags += ["manylinux2010_x86_64", "manylinux1_x86_64"]
        return [*tags, f"linux_{self.machine}"]


TARGETS = (Target("aarch64", 27), Target("x86_64", 28))


@dataclass(frozen=True)
class Pin:
    """One line of the lock."""

    requirement: Requirement
    hashes: frozenset[str]

    @property
    def name(self) -> str:
        return canonicalize_name(self.requirement.name)

    @property
    def spec(self) -> str:
        return f"{self.name}{self.requirement.specifier}"


@dataclass(frozen=True)
class Answer:
    """What pip would install for a pin: a wheel's file name, or why there is none."""

    wheel: str = ""
    problem: str = ""


def read_lock(path: Path) -> list[Pin]:
    """The pins of a lock written by `uv pip compile --generate-hashes`."""
    text = re.sub(r"\\\n", " ", path.read_text(encoding="utf-8"))
    pins = []
    for line in text.splitlines():
        line = line.split("#")[0].strip()
        if not line or line.startswith("-"):
            continue
        words = line.split("--hash=sha256:")
        try:
            requirement = Requirement(words[0].strip())
        except InvalidRequirement as error:
            raise SystemExit(f"check-wheels: {path}: {error}") from None
        pins.append(Pin(requirement, frozenset(word.strip() for word in words[1:])))
    return pins


def environment(target: Target, python: str) -> dict[str, str]:
    """The marker environment of CPython `python` on such a board."""
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "os_name": "posix",
        "platform_machine": target.machine,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
        "extra": "",
    }


def wanted(pins: Iterable[Pin], target: Target, python: str) -> list[Pin]:
    """Those that such a board installs."""
    env = environment(target, python)
    return [pin for pin in pins if pin.requirement.marker is None or pin.requirement.marker.evaluate(env)]


def pip_install(target: Target, python: str, folder: Path) -> list[str]:
    """pip's command line that installs what such a board would into a folder; the requirements go behind it."""
    tag = f"cp{python.replace('.', '')}"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--target", str(folder), "--no-input", "--disable-pip-version-check"]
    command += ["--python-version", python, "--implementation", "cp"]
    for abi in (tag, "abi3", "none"):
        command += ["--abi", abi]
    for platform in target.platforms():
        command += ["--platform", platform]
    return command


def ask_pip(specs: Iterable[str], target: Target, python: str) -> tuple[dict[str, tuple[str, str]], str]:
    """Let pip choose wheels, download none. Returns {name: (wheel, sha256)} and pip's error text (empty: none)."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = pip_install(target, python, Path(folder) / "site")
        command += ["--dry-run", "--ignore-installed", "--report", str(report)]
        done = subprocess.run([*command, *specs], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return {}, done.stderr.strip()
        chosen: dict[str, tuple[str, str]] = {}
        for item in json.loads(report.read_text(encoding="utf-8"))["install"]:
            info = item["download_info"]
            wheel = info["url"].split("#")[0].rsplit("/", 1)[-1]
            sha256 = info.get("archive_info", {}).get("hashes", {}).get("sha256", "")
            chosen[canonicalize_name(item["metadata"]["name"])] = (wheel, sha256)
        return chosen, ""


def no_wheel(error: str) -> bool:
    """Whether pip's error says that no wheel fits (anything else is a network or set-up problem)."""
    return "No matching distribution" in error


def judge(pins: Iterable[Pin], target: Target, python: str) -> dict[str, Answer]:
    """The answer for each pin that such a board would install."""
    pins = wanted(pins, target, python)
    answers = {pin.name: Answer("(source, pure Python: copied)") for pin in pins if pin.name in PURE_SDISTS}
    asked = [pin for pin in pins if pin.name not in PURE_SDISTS]
    # All at once is quick; only when that fails is every package asked alone, so that each offender is named.
    chosen, error = ask_pip([pin.spec for pin in asked], target, python)
    if error and not no_wheel(error):
        raise SystemExit(f"check-wheels: pip could not ask the package index: {error.splitlines()[-1]}")
    for pin in asked:
        if error:
            chosen, alone = ask_pip([pin.spec], target, python)
            if alone and not no_wheel(alone):
                raise SystemExit(f"check-wheels: pip could not ask the package index: {alone.splitlines()[-1]}")
        if pin.name not in chosen:
            answers[pin.name] = Answer(problem=f"no wheel for {target.title}")
        elif chosen[pin.name][1] not in pin.hashes:
            answers[pin.name] = Answer(problem=f"{chosen[pin.name][0]} is not among the hashes of the lock")
        else:
            answers[pin.name] = Answer(chosen[pin.name][0])
    return answers


def tags(answer: Answer) -> str:
    """The short form for the table: the tags of a wheel, or NONE."""
    if answer.problem:
        return "NONE"
    if not answer.wheel.endswith(".whl"):
        return "source (pure)"
    python, abi, platform = answer.wheel.removesuffix(".whl").split("-")[-3:]
    if platform == "any":
        return "any"
    short = [re.sub(r"_(aarch64|x86_64)$", "", tag) for tag in platform.split(".")]
    return f"{abi if abi != 'none' else python} {min(short, key=len)}"


def table(title: str, columns: Mapping[str, dict[str, Answer]]) -> None:
    """Print one target's answers, a row per package and a column per Python."""
    print(f"\n{title}")
    names = sorted({name for answers in columns.values() for name in answers})
    print(f"  {'package':28}" + "".join(f"{'CPython ' + python:26}" for python in columns))
    for name in names:
        cells = [tags(answers[name]) if name in answers else "-" for answers in columns.values()]
        print(f"  {name:28}" + "".join(f"{cell:26}" for cell in cells).rstrip())


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/check-wheels",
        description="Check that every locked package has a wheel for aarch64 (glibc 2.27) and x86-64 (glibc 2.28).",
        epilog="example: scripts/check-wheels --python 3.11",
    )
    parser.add_argument(
        "lock", nargs="?", type=Path, default=ROOT / "requirements" / "run.txt", help="default: run.txt"
    )
    parser.add_argument("--python", action="append", help="only this version (3.11, 3.12 and 3.13 when absent)")
    options = parser.parse_args()
    if not options.lock.is_file():
        raise SystemExit(f"check-wheels: there is no file {options.lock}")
    pins = read_lock(options.lock)
    offenders: list[str] = []
    for target in TARGETS:
        columns: dict[str, dict[str, Answer]] = {}
        for python in options.python or ["3.11", "3.12", "3.13"]:
            columns[python] = judge(pins, target, python)
            specs = {pin.name: pin.spec for pin in pins}
            for name, answer in columns[python].items():
                if answer.problem:
                    offenders.append(f"{specs[name]} (CPython {python}): {answer.problem}")
        table(target.title, columns)
    print()
    if offenders:
        print("\n".join(offenders), file=sys.stderr)
        print(f"check-wheels: {len(offenders)} without a usable wheel; bound them in pyproject.toml", file=sys.stderr)
        return 1
    print("check-wheels: every locked package has a wheel that the oldest board can load")
    return 0


if __name__ == "__main__":
    sys.exit(main())
