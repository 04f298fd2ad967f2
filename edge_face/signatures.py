"""Signatures of webhooks, as Standard Webhooks (https://www.standardwebhooks.com) describe them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

_WHSEC = "whsec_"


def signing_key(secret: str) -> bytes:
    """`whsec_` and base64 is decoded; any other text is the key itself. Raises ValueError, without the secret."""
    if not secret.startswith(_WHSEC):
        return secret.encode()
    text = secret.removeprefix(_WHSEC)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("what follows whsec_ is not base64") from None


def headers(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """What a request carries: one signature for each key, so that a receiver that knows any of them can check it.

    `timestamp`: Unix seconds of this attempt. No keys: nothing.
    """
    if not keys:
        return {}
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(_sign(key, message_id, timestamp, body) for key in keys),
    }


def _sign(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """Version 1: HMAC-SHA256 over "id.timestamp.body"."""
    digest = hmac.digest(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode('ascii')}"
