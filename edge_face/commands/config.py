"""`edge-face config`."""

from __future__ import annotations

import argparse

from edge_face import config as configuration


def config(args: argparse.Namespace) -> int:
    if args.defaults:
        print(configuration.defaults_text(), end="")
    else:
        print(configuration.effective_text(configuration.load(args.config)), end="")
    return 0
