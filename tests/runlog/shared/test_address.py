from __future__ import annotations

import pytest

from gateway.runlog.shared.address import Address


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h", "redis://h:6379"),
        ("valkey://user:secret@h:1234/2", "valkey://h:1234/2"),
        ("valkeys://:secret@h?ssl_ca_certs=/ca.pem", "valkeys://h:6379"),
        ("rediss://h:1?db=3", "rediss://h:1"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert str(Address(url)) == shown


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://secret@h", "begins with 'http'"),
        ("secret", "has no scheme"),
        ("redis://:secret@", "has no host"),
        ("redis://:secret@h/db", "database 'db', which isn't a number"),
        ("redis://:secret@h:99999", "Port out of range"),
        ("redis://:secret@h?decode_responses=true", "unknown option 'decode_responses'"),
        ("redis://:secret@h?db=x", "Invalid value for 'db'"),
    ],
)
def test_a_bad_url_says_what_is_allowed_and_not_its_password(url: str, says: str) -> None:
    with pytest.raises(ValueError, match="allowed: ") as raised:
        Address(url)
    assert says in str(raised.value)
    assert "secret" not in str(raised.value)
