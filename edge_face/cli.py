"""The command line: arguments, help, exit codes. What the commands do is in `commands/`.

Exit codes: 0 done, 1 it failed (one line on standard error says why), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from edge_face import __version__, export, threads
from edge_face.audit import Head, parse_head
from edge_face.errors import ConfigError, EdgeFaceError, RequestError
from edge_face.queries import day_of, parse_time

Command = str
"""`module:function` in `edge_face.commands`, imported only when called: the daemon's imports take a Pi a second."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> NoReturn:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be text, nor terminals know UTF-8
    args = parser().parse_args(argv)
    os.environ.update(threads.blas(1))  # a gallery's product takes microseconds; the children have [engine] threads
    try:
        module, _, function = args.command.partition(":")
        code = getattr(import_module(f"edge_face.commands.{module}"), function)(args)
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        code = 1
    except EdgeFaceError as error:
        print(f"edge-face: {error.message}", file=sys.stderr)
        code = 1
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # `edge-face events | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 0
        else:
            print(f"edge-face: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
            code = 1
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def parser() -> argparse.ArgumentParser:
    top = _Parser(prog="edge-face", description="Face recognition for gates and doors.", allow_abbrev=False)
    top.add_argument("--version", action="version", version=f"edge-face {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=_Parser)

    def add(name: str, help: str, command: Command, example: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=help,
            description=f"{help[0].upper()}{help[1:]}.",
            epilog=f"example: {example}",
            allow_abbrev=False,
        )
        sub.add_argument(
            "--config", type=Path, metavar="FILE", help="default: ./config.ini, else /etc/edge-face/config.ini"
        )
        sub.set_defaults(command=command)
        return sub

    _add_running(add)
    _add_people(add)
    _add_records(add)
    _add_data(add)
    return top


_Add = Callable[[str, str, Command, str], argparse.ArgumentParser]


def _add_running(add: _Add) -> None:
    sub = add("run", "watch the cameras until stopped", "run:run", "edge-face run --config /etc/edge-face/config.ini")
    sub.add_argument(
        "--demo-without-camera", action="store_true", help="start the demo if source is auto and there is no camera"
    )
    add("demo", "show it at work on two photos, with a throw-away database", "run:demo", "edge-face demo")
    add("check", "try config, models, cameras, broker and webhooks", "check:check", "edge-face check")
    sub = add("models", "list and verify the models, test every backend", "models:models", "edge-face models --json")
    sub.add_argument("--json", action="store_true", help="one object with files and backends")
    _add_bench(add)
    sub = add("config", "print the configuration, secrets masked", "config:config", "edge-face config --defaults")
    sub.add_argument("--defaults", action="store_true", help="print a commented file with every key at its default")


def _add_data(add: _Add) -> None:
    sub = add(
        "backup",
        "copy the database into a file, also while it is in use",
        "backup:backup",
        "edge-face backup gate.backup",
    )
    sub.add_argument("file", type=Path, metavar="FILE")
    sub.add_argument("--encrypt", action="store_true", help="ask for a passphrase, and encrypt with it")
    sub.add_argument("--passphrase-file", type=Path, metavar="F", help="encrypt with the first line of this file")
    sub = add(
        "restore",
        "put a backup in the database's place; the daemon must be stopped",
        "backup:restore",
        "edge-face restore gate.backup",
    )
    sub.add_argument("file", type=Path, metavar="FILE")
    sub.add_argument("--passphrase-file", type=Path, metavar="F", help="its first line is the passphrase")
    sub = add(
        "templates",
        "say how the templates of faces are encrypted, or change it; for a change the daemon must be stopped",
        "templates:templates",
        "edge-face templates --encrypt",
    )
    what = sub.add_mutually_exclusive_group()
    what.add_argument("--new-key", action="store_true", help="print a new key, for [storage] template_key")
    what.add_argument("--encrypt", action="store_true", help="encrypt what is there, with template_key")
    what.add_argument("--rekey", action="store_true", help="decrypt with old_template_key, encrypt with template_key")
    what.add_argument("--decrypt", action="store_true", help="decrypt what is there")
    sub = add("audit", "list or verify what was decided and changed", "audit:audit", "edge-face audit --verify")
    sub.add_argument("--verify", action="store_true", help="prove that nothing was altered, cut out or cut off")
    sub.add_argument("--head", type=_head, metavar="N:HASH", help="what an earlier --verify printed must be in it")
    sub.add_argument(
        "--since", type=_time, metavar="T", help="from then on: 2026-01-31, 2026-01-31T08:00, Unix seconds"
    )
    sub.add_argument("--until", type=_time, metavar="T", help="before this time")
    sub.add_argument("--json", action="store_true", help="one object per row and line")


def _add_bench(add: _Add) -> None:
    sub = add(
        "bench",
        "measure this board, and say what it can serve (under 3 minutes)",
        "bench:bench",
        "edge-face bench --html report.html",
    )
    sub.add_argument("--quick", action="store_true", help="half a minute: fewer rounds, cameras with one detector")
    sub.add_argument("--json", type=Path, metavar="FILE", help="write all figures as JSON")
    sub.add_argument("--html", type=Path, metavar="FILE", help="write a report with plots: one page to send to others")
    sub.add_argument(
        "--source",
        metavar="CLIP",
        help="measure with this clip, or camera, in which somebody looks into the camera; default: the demo's photos, "
        "else the first camera",
    )
    sub.add_argument(
        "--latency",
        type=_milliseconds,
        default=300.0,
        metavar="MS",
        help="milliseconds from a face's first picture to the decision that the advice has to hold (default 300)",
    )
    sub.add_argument(
        "--apply", action="store_true", help="write the advice into the config file, and keep a copy of it"
    )
    sub.add_argument("--seconds", type=float, help=argparse.SUPPRESS)  # for tests: how long it may take


def _milliseconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 10 <= value <= 60_000:
        raise argparse.ArgumentTypeError(f"expected 10 to 60000 milliseconds, not {text}")
    return value


def _add_people(add: _Add) -> None:
    sub = add("enroll", "enrol people from photos", "people:enroll", "edge-face enroll Katya katya1.jpg katya2.jpg")
    sub.add_argument("name", nargs="?", metavar="NAME", help="whose photos they are")
    sub.add_argument("images", nargs="*", type=Path, metavar="IMAGE", help="photos with one face each")
    sub.add_argument("--external-id", metavar="ID", help="the person's number in another system")
    sub.add_argument(
        "--force",
        action="store_true",
        help="enrol also who would pass as another, or photos that disagree",
    )
    many = sub.add_mutually_exclusive_group()
    many.add_argument("--zip", type=Path, metavar="FILE", help="a ZIP of NAME.jpg or NAME/1.jpg")
    many.add_argument("--dir", type=Path, metavar="DIR", help="a folder of NAME.jpg or NAME/1.jpg")
    sub = add("people", "list who is enrolled", "people:people", "edge-face people --json")
    sub.add_argument("--json", action="store_true", help="an array of objects")
    sub = add("remove", "remove a person and their faces", "people:remove", "edge-face remove Katya")
    sub.add_argument("person", metavar="NAME|ID")
    sub = add(
        "export", "write all that is stored of a person into a ZIP", "people:export", "edge-face export Katya katya.zip"
    )
    sub.add_argument("person", metavar="NAME|ID")
    sub.add_argument("file", type=Path, metavar="FILE")
    sub = add("import-ids", "give people the ids of a spreadsheet", "ids:import_ids", "edge-face import-ids ids.xlsx")
    sub.add_argument("file", type=Path, metavar="FILE", help=".xlsx or .csv with a column for names and one for ids")
    sub = add("recognize", "say who is in photos", "people:recognize", "edge-face recognize --json door.jpg")
    sub.add_argument("images", nargs="+", metavar="IMAGE")
    sub.add_argument("--json", action="store_true", help="one object per photo and line")


def _time(text: str) -> float | None:
    try:
        return parse_time(text, "a time")
    except RequestError as error:
        raise argparse.ArgumentTypeError(error.message) from None


def _head(text: str) -> Head:
    try:
        return parse_head(text)
    except ValueError:
        raise argparse.ArgumentTypeError("expected N:HASH, as edge-face audit --verify prints it") from None


def _day(text: str) -> str:
    """The text again: which day `today` is depends on the configuration's time zone."""
    try:
        day_of(text)
        return text
    except RequestError as error:
        raise argparse.ArgumentTypeError(error.message) from None


def _add_records(add: _Add) -> None:
    sub = add("events", "list what happened", "events:events", "edge-face events --since 2026-01-31 --status PASS")
    sub.add_argument(
        "--since", type=_time, metavar="T", help="from then on: 2026-01-31, 2026-01-31T08:00, Unix seconds"
    )
    sub.add_argument("--until", type=_time, metavar="T", help="before this time")
    sub.add_argument("--status", type=str.upper, choices=("PASS", "REJECT"), metavar="S", help="PASS or REJECT")
    sub.add_argument("--format", choices=export.FORMATS, default="table", metavar="F", help=", ".join(export.FORMATS))
    sub.add_argument("-o", "--output", type=Path, metavar="FILE", help="write to a file instead of the terminal")
    sub = add("attendance", "list who was there", "attendance:attendance", "edge-face attendance --date today")
    sub.add_argument("--date", type=_day, metavar="D", help="of this day only: 2026-01-31, or today")
    sub.add_argument("--daily", action="store_true", help="a row for each person and day: first and last sight, visits")
    sub.add_argument("--format", choices=export.FORMATS, default="table", metavar="F", help=", ".join(export.FORMATS))
    sub.add_argument("-o", "--output", type=Path, metavar="FILE", help="write to a file instead of the terminal")
    sub = add("token", "print the admin token, or manage tokens", "tokens:token", "edge-face token --new --role viewer")
    what = sub.add_mutually_exclusive_group()
    what.add_argument("--new", action="store_true", help="print a new token; with no --role a new admin token")
    what.add_argument("--list", action="store_true", help="list all tokens, without their secrets")
    what.add_argument("--revoke", type=int, metavar="ID", help="end a token")
    sub.add_argument("--role", choices=("admin", "viewer"), help="what the new token allows")
    sub.add_argument("--label", metavar="TEXT", help="what the new token is for, as --list shows it; goes with --role")
