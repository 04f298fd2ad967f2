"""Fetch YuNet's model file, check its pinned SHA-256, and put it where edge-face looks for it (scripts/get-yunet)."""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from edge_face import config
from edge_face.settings import YUNET_FILE
from edge_face.vision.yunet import SHA256

LARGEST_BYTES = 16 << 20
"""The file has a quarter of a megabyte. A wrong address must not fill an SD card."""
TIMEOUT_S = 60


class RefusedError(Exception):
    """The file cannot be had, or is not the right one; the message is for people."""


def fetch(url: str, target: Path) -> None:
    """Raises RefusedError. The target is replaced in one step, and only by the right file."""
    if urlsplit(url).scheme not in ("http", "https", "file"):
        raise RefusedError(f"{url} is not an http://, https:// or file:// address")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as reply:  # noqa: S310  # the scheme was checked
            content = reply.read(LARGEST_BYTES + 1)
        digest = hashlib.sha256(content).hexdigest()
        if digest != SHA256:
            raise RefusedError(
                f"this is not {YUNET_FILE}: its SHA-256 is {digest} and not {SHA256}; nothing is kept of it"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".yunet-") as folder:
            whole = Path(folder) / YUNET_FILE
            whole.write_bytes(content)
            whole.chmod(0o644)  # the daemon's user has to read it
            whole.replace(target)
    except (OSError, ValueError) as error:
        raise RefusedError(f"{url} cannot be fetched to {target}: {error}") from None


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/get-yunet", description=__doc__)
    parser.add_argument("--config", type=Path, help="put it into models/ beside this configuration")
    parser.add_argument("--to", type=Path, help="put it here instead")
    parser.add_argument("url", help=f"http(s):// or file:// address of {YUNET_FILE}")
    args = parser.parse_args()
    file = config.find(args.config)
    beside = (file.parent if file else Path()).resolve() / "models" / YUNET_FILE
    target = (args.to or beside).resolve()
    if target.is_dir():
        target /= YUNET_FILE
    try:
        fetch(args.url, target)
    except RefusedError as error:
        print(f"get-yunet: {error}", file=sys.stderr)
        return 1
    print(f"{target} is in place.")
    if target == beside:
        print("edge-face finds it there by itself (detector = auto or yunet). To name it anyway:")
    else:
        print("Add to the configuration:")
    print(f"[engine]\nyunet_model = {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
