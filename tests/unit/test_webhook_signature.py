"""Standard Webhooks signatures."""

from __future__ import annotations

import pytest

from edge_face import signatures


def test_the_example_of_the_specification() -> None:
    # https://github.com/standard-webhooks/standard-webhooks, the reference libraries' own test vector
    key = signatures.signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signatures.headers([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_without_a_secret_nothing_is_signed() -> None:
    assert signatures.headers([], "id", 1, b"{}") == {}


@pytest.mark.parametrize(
    ("secret", "key"),
    [
        ("whsec_AAEC", b"\x00\x01\x02"),
        ("whsec_AA", b"\x00"),  # without padding
        ("plain text", b"plain text"),
        ("gehäim", "gehäim".encode()),
    ],
)
def test_secrets(secret: str, key: bytes) -> None:
    assert signatures.signing_key(secret) == key


def test_a_broken_secret_is_reported_without_showing_it() -> None:
    with pytest.raises(ValueError, match=r"^what follows whsec_ is not base64$"):
        signatures.signing_key("whsec_not*base64")
