"""What people type: names and ids of other systems, checked in one place, before they reach the store."""

from __future__ import annotations

import unicodedata

from edge_face.errors import RequestError

LONGEST = 100

_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""These reorder the text around them, so that one name looks like another. Zero-width joiners are no such trick."""


def clean_name(text: str) -> str:
    """A person's name as it is kept: NFC, without surrounding blanks. Raises RequestError (`bad_name`)."""
    return _clean(text, "A name", "bad_name")


def clean_external_id(text: str | None) -> str | None:
    """Another system's id of a person; blank counts as none. Raises RequestError (`bad_external_id`)."""
    return _clean(text, "An external id", "bad_external_id") if text and text.strip() else None


def clean_group(text: str | None) -> str | None:
    """The group that a person belongs to; blank counts as none. Raises RequestError (`bad_group`)."""
    return _clean(text, "A group", "bad_group") if text and text.strip() else None


def clean_label(text: str | None) -> str:
    """What a token is for; empty if nothing is said. Raises RequestError (`bad_label`)."""
    return _clean(text, "A label", "bad_label") if text and text.strip() else ""


def _clean(text: str, what: str, code: str) -> str:
    cleaned = unicodedata.normalize("NFC", text).strip()
    if not 1 <= len(cleaned) <= LONGEST:
        raise RequestError(f"{what} has 1 to {LONGEST} characters, not {len(cleaned)}", code)
    # Cc control, Zl and Zp line ends, Cs half of a character (not even UTF-8)
    if any(unicodedata.category(char) in ("Cc", "Zl", "Zp", "Cs") or char in _BIDI for char in cleaned):
        raise RequestError(f"{what} has no control characters or line ends", code)
    if not any(char.isprintable() and not char.isspace() for char in cleaned):
        raise RequestError(f"{what} has at least one visible character", code)
    return cleaned


def key_text(text: str) -> str:
    """Text to search for, in the form in which names are kept. Never raises: what cannot exist is merely not found."""
    return unicodedata.normalize("NFC", text).strip().encode("utf-8", "replace").decode("utf-8")
