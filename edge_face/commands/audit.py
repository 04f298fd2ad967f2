"""`edge-face audit`."""

from __future__ import annotations

import argparse
import json
import sys

from edge_face import config
from edge_face.commands.session import open_store
from edge_face.events import utc


def audit(args: argparse.Namespace) -> int:
    if args.head and not args.verify:
        print("edge-face audit: --head goes with --verify (see --help)", file=sys.stderr)
        return 2
    store = open_store(config.load(args.config))
    try:
        if args.verify:
            verdict = store.verify_audit(args.head)
            if verdict.problem:
                print(f"edge-face: the audit is not whole: {verdict.problem}.", file=sys.stderr)
                return 1
            print(f"the audit is whole: {verdict.rows} rows, head {verdict.head}")
            return 0
        for row in store.audit_rows(args.since, args.until):
            row["time"] = utc(row.pop("at"))
            print(json.dumps(row, ensure_ascii=False) if args.json else _line(row))
    finally:
        store.close()
    return 0


def _line(row: dict[str, object]) -> str:
    said = " ".join(f"{key}={value}" for key, value in row.items() if key not in ("n", "time", "what"))
    return f"{row['n']:>6}  {row['time']}  {row['what']:<14}  {said}"
