"""`edge-face token`."""

from __future__ import annotations

import argparse
import sys

from edge_face import config
from edge_face.clock import SystemClock
from edge_face.commands.session import open_store
from edge_face.events import utc
from edge_face.names import clean_label
from edge_face.tokens import Tokens, token_file


def token(args: argparse.Namespace) -> int:
    for option, given, needs, there in (
        ("--role", args.role, "--new", args.new),
        ("--label", args.label, "--new --role", args.new and args.role),
    ):
        if given and not there:
            print(f"edge-face token: {option} goes with {needs} (see --help)", file=sys.stderr)
            return 2
    store = open_store(config.load(args.config))
    try:
        tokens = Tokens(store, SystemClock())
        if args.list:
            for known in tokens.list():
                print(f"{known.id}\t{known.role}\t{utc(known.created_at)}\t{known.label}")
        elif args.revoke is not None:
            tokens.revoke(args.revoke)
            print(f"revoked token {args.revoke}")
        elif args.new and args.role:
            print(tokens.new(args.role, clean_label(args.label))[1])
        elif args.new:
            print(tokens.rotate_admin(token_file(store.path)))
        else:
            print(tokens.ensure_admin(token_file(store.path)))
    finally:
        store.close()
    return 0
