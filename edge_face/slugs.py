"""Any text as an ASCII name for topics and ids, such that two different texts never share one."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable

_LONGEST = 64
_PLAIN = re.compile(rf"[a-z0-9_-]{{1,{_LONGEST}}}")
_TAKEN = frozenset({"cmd"})
"""A camera of that name would stand where commands do."""
_HASHED = re.compile(r".*-[0-9a-f]{8}")


def slug(text: str) -> str:
    """A topic level of `[a-z0-9_-]`, at most 64 characters, never empty, the same for ever.

    Text that is one already stays. Anything else is folded, which loses what told it apart (two names in Cyrillic both
    fold to nothing), so eight hex digits of its SHA-256 are added. Text that merely looks like such a result gets them
    as well; otherwise a camera named like another's slug would share its topic.
    """
    if _PLAIN.fullmatch(text) and not _HASHED.fullmatch(text) and text not in _TAKEN:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{fold(text) or 'x'}-{digest}"


def fold(text: str) -> str:
    """The readable part: accents and capitals dropped, everything else a dash. Empty for, say, Chinese. Not unique."""
    ascii_only = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii").lower()
    return re.sub(r"[^a-z0-9_]+", "-", ascii_only).strip("-_")[: _LONGEST - 9].rstrip("-_")


def person_id(name: str, taken: Callable[[str], bool]) -> str:
    """A readable id: the folded name, with -2, -3, ... while `taken` says that somebody has or had it."""
    base = fold(name) or "person"
    candidate, number = base, 1
    while taken(candidate):
        number += 1
        candidate = f"{base}-{number}"
    return candidate
