"""The provider's keys against its real server: loaded, rotated, kept while it is down, and never asked for too often."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from joserfc.jwk import OctKey, RSAKey
from structlog.testing import capture_logs

from gateway.auth.jwks import SIZE_LIMIT_BYTES, Jwks
from tests.auth.conftest import Clock
from tests.auth.provider import Provider
from tests.conftest import until


async def test_keys_are_loaded_by_their_ids(provider: Provider) -> None:
    provider.publish("a", "b")
    jwks = Jwks(provider.url)
    assert await jwks.load()
    assert (len(jwks), jwks.find("a") is None, jwks.find("c")) == (2, False, None)
    assert jwks.find(None) is None


async def test_a_token_without_a_kid_is_of_the_only_key(provider: Provider) -> None:
    jwks = Jwks(provider.url)
    await jwks.load()
    assert jwks.find(None) is jwks.find("k1") is not None


async def test_an_unknown_key_is_looked_for_but_not_again_and_again(provider: Provider, clock: Clock) -> None:
    jwks = Jwks(provider.url, retry_s=10, clock=clock)
    await jwks.load()
    provider.publish("k2")
    clock.now += 11
    found = await asyncio.gather(*(jwks.refresh_for(kid) for kid in ["k2", "nonsense", "k2", *map(str, range(50))]))
    assert (found[0] is found[2] is not None, found[1], provider.requests) == (True, None, 2)
    assert jwks.find("k1") is None
    clock.now += 9
    assert await jwks.refresh_for("k3") is None
    assert provider.requests == 2
    provider.publish("k3")
    clock.now += 2
    assert await jwks.refresh_for("k3") is not None


async def test_old_keys_stay_while_the_provider_is_down(provider: Provider, clock: Clock) -> None:
    jwks = Jwks(provider.url, clock=clock)
    await jwks.load()
    provider.down = True
    assert not await jwks.load()
    assert jwks.find("k1") is not None
    assert jwks.loaded


async def test_who_remembers_tokens_is_told_of_other_keys_and_only_then(provider: Provider) -> None:
    changes: list[int] = []
    jwks = Jwks(provider.url, changed=lambda: changes.append(1))
    await jwks.load()
    await jwks.load()
    assert len(changes) == 1
    provider.publish("k1", "k2")
    await jwks.load()
    assert len(changes) == 2


async def test_run_loads_again_and_again(provider: Provider) -> None:
    jwks = Jwks(provider.url, refresh_s=0.01)
    task = asyncio.create_task(jwks.run())
    await until(lambda: provider.requests >= 3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_keys_may_be_in_a_file(provider: Provider, tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(provider.key_set())
    jwks = Jwks(str(path))
    assert await jwks.load()
    assert jwks.find("k1") is not None
    path.unlink()
    assert not await jwks.load()
    assert jwks.find("k1") is not None


RSA = RSAKey.generate_key(2048)
SYMMETRIC = OctKey.generate_key(256).as_dict(private=True)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": 1}',
        b'{"keys": []}',
        b'{"keys": [{"kty": "EC", "kid": "broken"}]}',
        json.dumps({"keys": [SYMMETRIC]}).encode(),
        json.dumps({"keys": [RSA.as_dict(private=True)]}).encode(),
        json.dumps({"keys": [RSA.as_dict(private=False, use="enc")]}).encode(),
        b" " * (SIZE_LIMIT_BYTES + 1),
    ],
    ids=["empty", "list", "no keys", "number", "none", "broken", "symmetric", "private", "for encryption", "too large"],
)
async def test_what_has_no_public_key_for_signatures_changes_nothing(provider: Provider, document: bytes) -> None:
    jwks = Jwks(provider.url)
    await jwks.load()
    provider.document = document
    assert not await jwks.load()
    assert jwks.find("k1") is not None


async def test_a_key_that_cannot_be_read_costs_only_itself(provider: Provider) -> None:
    keys = json.loads(provider.key_set())["keys"]
    provider.document = json.dumps({"keys": [{"kty": "EC", "kid": "odd", "crv": "P-1"}, {"kty": "AKP", "kid": "new"}, *keys]}).encode()
    jwks = Jwks(provider.url)
    assert await jwks.load()
    assert (len(jwks), jwks.find("odd")) == (1, None)


async def test_an_address_nobody_listens_at_is_no_failure_of_ours() -> None:
    jwks = Jwks("http://127.0.0.1:9/jwks.json")
    assert not await jwks.load()
    assert not jwks.loaded


async def test_a_password_in_the_address_is_not_logged() -> None:
    with capture_logs() as logs:
        assert not await Jwks("http://user:pass-word@127.0.0.1:9/jwks.json").load()
    said = str(logs)
    assert ("127.0.0.1:9" in said, "pass-word" in said) == (True, False)
