"""API tokens: shown once, kept as hashes, ended at once."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from edge_face.errors import NotFoundError, StoreError
from edge_face.store import Store
from edge_face.tokens import Tokens, token_file
from tests.support.clock import HandClock


@pytest.fixture
def tokens(store: Store, clock: HandClock) -> Tokens:
    return Tokens(store, clock)


def test_the_first_start_makes_an_admin_token_in_a_private_file(tokens: Tokens, path: Path) -> None:
    file = token_file(path)
    token = tokens.ensure_admin(file)
    assert file.name == "edge-face.db.token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text() == token + "\n"
    assert token.startswith("ef_")
    assert len(token) >= 3 + 43, "32 random bytes"
    assert tokens.role_of(token) == "admin"
    file.chmod(0o644)
    assert tokens.ensure_admin(file) == token
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    stored = b"".join(other.read_bytes() for other in path.parent.iterdir() if other != file)
    assert token.encode() not in stored, "the file is the only copy"
    assert {file.name for file in path.parent.iterdir()} == {path.name + end for end in ("", "-wal", "-shm", ".token")}


def test_a_lost_or_wrong_file_gives_a_new_token_and_ends_the_old(tokens: Tokens, path: Path) -> None:
    file = token_file(path)
    first = tokens.ensure_admin(file)
    file.unlink()
    second = tokens.ensure_admin(file)
    assert tokens.role_of(first) is None
    assert tokens.role_of(second) == "admin"
    file.write_text("ef_guess")
    third = tokens.ensure_admin(file)
    assert tokens.role_of(second) is None
    file.write_text(tokens.new("viewer")[1])
    assert tokens.role_of(tokens.ensure_admin(file)) == "admin", "a viewer's token in the file is not enough"
    assert tokens.role_of(third) is None


def test_rotation_ends_only_the_token_in_the_file(tokens: Tokens, path: Path) -> None:
    file = token_file(path)
    old = tokens.ensure_admin(file)
    _, other = tokens.new("admin", "backup")
    new = tokens.rotate_admin(file)
    assert [tokens.role_of(token) for token in (old, other, new)] == [None, "admin", "admin"]
    assert tokens.ensure_admin(file) == new


def test_a_file_that_cannot_be_written_leaves_the_old_token_in_force(tokens: Tokens, path: Path) -> None:
    token = tokens.ensure_admin(token_file(path))
    with pytest.raises(StoreError, match="cannot be written"):
        tokens.rotate_admin(path.parent / "missing" / "x.token")
    assert tokens.role_of(token) == "admin"
    with pytest.raises(StoreError, match="cannot be read"):
        tokens.ensure_admin(path.parent)


def test_tokens_are_listed_and_revoked(tokens: Tokens, path: Path) -> None:
    tokens.ensure_admin(token_file(path))
    number, viewer = tokens.new("viewer", "hall screen")
    assert tokens.role_of(viewer) == "viewer"
    assert [(info.role, info.label, info.in_file) for info in tokens.list()] == [
        ("admin", "first admin", True),
        ("viewer", "hall screen", False),
    ]
    tokens.revoke(number)
    assert tokens.role_of(viewer) is None
    with pytest.raises(NotFoundError):
        tokens.revoke(number)
    assert tokens.new("viewer")[0] > number, "numbers are not used again"


@pytest.mark.parametrize("wrong", ["", "ef_", "x" * 100_000, "Катя", "\udcff", "\0"])
def test_a_wrong_token_allows_nothing(tokens: Tokens, path: Path, wrong: str) -> None:
    tokens.ensure_admin(token_file(path))
    assert tokens.role_of(wrong) is None
