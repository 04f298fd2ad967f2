"""Standard Webhooks signatures."""

from __future__ import annotations

import pytest

from edge_face.errors import ConfigError
from edge_face.sinks.webhook import sign, signing_key


def test_the_example_of_the_specification() -> None:
    # https://github.com/standard-webhooks/standard-webhooks, the reference libraries' own test vector
    key = signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signature = sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


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
    assert signing_key(secret) == key


def test_a_broken_secret_is_reported_without_showing_it() -> None:
    with pytest.raises(ConfigError) as caught:
        signing_key("whsec_not*base64", "[webhook:default] secret")
    assert caught.value.problems == ("[webhook:default] secret: what follows whsec_ is not base64",)
