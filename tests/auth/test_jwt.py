"""What tokens are good, and which aren't: signature, algorithm, issuer, audience, time; and that a good one is checked once."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64encode
from typing import Any, get_args

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from gateway.auth.jwks import Jwks
from gateway.auth.jwt import TokenRules, TokenVerifier
from gateway.auth.scopes import read_scopes
from gateway.errors import GatewayError
from gateway.settings import Algorithm
from tests.auth.conftest import Clock
from tests.auth.provider import AUDIENCE, ISSUER, Provider

RULES = TokenRules(ISSUER, AUDIENCE, get_args(Algorithm), leeway_s=10)


async def verifier(provider: Provider, rules: TokenRules = RULES, **options: Any) -> TokenVerifier:
    jwks = Jwks(provider.url, retry_s=0)
    await jwks.load()
    return TokenVerifier(jwks, rules, **options)


def refusal(tokens: TokenVerifier, token: str) -> str:
    with pytest.raises(GatewayError) as caught:
        tokens.verify_now(token)
    assert caught.value.problem == "invalid-credential"
    assert token not in caught.value.detail
    return caught.value.detail


async def test_a_good_token_says_who_and_what_and_until_when(provider: Provider) -> None:
    tokens = await verifier(provider)
    expires = int(time.time()) + 60
    caller = tokens.verify_now(provider.token("ada", "openid tools:train admin", exp=expires))
    assert caller is not None
    assert (caller.id, caller.grants, caller.expires_at) == ("jwt:ada", read_scopes(["tools:train", "admin"]), expires + 10)


@pytest.mark.parametrize("scope", [["tools:a", 1], "tools:a"])
async def test_scopes_may_be_a_list_and_stand_elsewhere(provider: Provider, scope: Any) -> None:
    tokens = await verifier(provider, TokenRules(ISSUER, AUDIENCE, ("ES256",), scope_claim="permissions"))
    caller = tokens.verify_now(provider.token(scope="admin", permissions=scope))
    assert caller is not None
    assert caller.grants == read_scopes(["tools:a"])


async def test_an_audience_may_be_one_of_several(provider: Provider) -> None:
    assert (await verifier(provider)).verify_now(provider.token(aud=["other", AUDIENCE])) is not None


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"iss": "https://evil.example/"}, "'iss'"),
        ({"iss": None}, "'iss'"),
        ({"aud": "other"}, "'aud'"),
        ({"aud": None}, "'aud'"),
        ({"exp": None}, "'exp'"),
        ({"exp": "soon"}, "'exp'"),
        ({"exp": int(time.time()) - 11}, "expired"),
        ({"nbf": int(time.time()) + 3600}, "'nbf'"),
        ({"sub": None}, "'sub'"),
        ({"sub": 7}, "'sub'"),
        ({"sub": "a\nb"}, "subject"),
        ({"sub": "a" * 201}, "subject"),
    ],
)
async def test_a_claim_that_is_missing_or_wrong_is_named(provider: Provider, claims: dict[str, Any], said: str) -> None:
    tokens = await verifier(provider)
    subject = claims.pop("sub", "ada")
    assert said in refusal(tokens, provider.token(subject, **claims))


async def test_clocks_may_differ_by_the_leeway(provider: Provider) -> None:
    tokens = await verifier(provider)
    now = int(time.time())
    assert tokens.verify_now(provider.token(exp=now - 5, nbf=now + 5)) is not None


async def test_a_token_of_another_key_of_that_name_is_refused(provider: Provider) -> None:
    assert "signature" in refusal(await verifier(provider), provider.token(key=ECKey.generate_key("P-256")))


async def test_a_token_whose_claims_were_changed_is_refused(provider: Provider) -> None:
    head, _, signature = provider.token().split(".")
    claims = json.dumps({"iss": ISSUER, "aud": AUDIENCE, "sub": "root", "scope": "admin", "exp": int(time.time()) + 60}).encode()
    assert "signature" in refusal(await verifier(provider), f"{head}.{urlsafe_b64encode(claims).decode().rstrip('=')}.{signature}")


def forged(header: dict[str, Any], signature: str = "") -> str:
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "root", "exp": int(time.time()) + 60}
    parts = [urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (header, claims)]
    return ".".join([*parts, signature])


async def test_no_algorithm_and_symmetric_ones_are_refused_whatever_the_token_says(provider: Provider) -> None:
    tokens = await verifier(provider)
    public = json.loads(provider.key_set())["keys"][0]
    for alg in ("none", "None", "HS256", "", None, 5, ["ES256"]):
        try:
            assert "algorithm" in refusal(tokens, forged({"alg": alg, "kid": "k1"}))
        except TypeError:
            pytest.fail(f"{alg!r} was not refused but failed")
    # The public key as a secret, the classic.
    secret = OctKey.import_key(json.dumps(public).encode())
    token = jwt.encode({"alg": "HS256", "kid": "k1"}, {"iss": ISSUER, "aud": AUDIENCE, "sub": "a"}, secret, algorithms=["HS256"])
    assert "algorithm" in refusal(tokens, token)


async def test_an_algorithm_of_another_kind_of_key_is_refused(provider: Provider) -> None:
    tokens = await verifier(provider)
    token = jwt.encode({"alg": "RS256", "kid": "k1"}, {"iss": ISSUER}, RSAKey.generate_key(2048))
    assert "signature" in refusal(tokens, token)


@pytest.mark.parametrize("token", ["..", "a.b.c", "e30.e30.e30", "W10.e30.x", "%.%.%", "[" * 5000 + ".b.c"])
async def test_what_is_no_token_is_refused(provider: Provider, token: str) -> None:
    refusal(await verifier(provider), token)


async def test_a_rotated_key_is_found_and_tokens_of_the_old_one_are_over(provider: Provider) -> None:
    tokens = await verifier(provider)
    old = provider.token("old")
    assert tokens.verify_now(old) is not None
    provider.publish("k2")
    new = provider.token("new", kid="k2")
    assert tokens.verify_now(new) is None
    assert (await tokens.verify(new)).id == "jwt:new"
    with pytest.raises(GatewayError, match="does not have"):
        await tokens.verify(old)


async def test_while_no_keys_could_be_loaded_it_is_the_providers_fault(provider: Provider) -> None:
    provider.down = True
    tokens = await verifier(provider)
    with pytest.raises(GatewayError) as caught:
        await tokens.verify(provider.token())
    assert (caught.value.problem, caught.value.http_status, caught.value.retryable) == ("auth-unavailable", 503, True)


async def test_a_good_token_is_checked_once_and_no_longer_than_it_lives(
    provider: Provider, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks: list[str] = []
    decode = jwt.decode
    monkeypatch.setattr("gateway.auth.jwt.jwt.decode", lambda token, *rest, **more: (checks.append(token), decode(token, *rest, **more))[1])
    tokens = await verifier(provider, clock=clock)
    token = provider.token(exp=int(clock.now) + 60, iat=None)
    first = tokens.verify_now(token)
    assert tokens.verify_now(token) is first is not None
    assert len(checks) == 1
    clock.now += 71
    assert "expired" in refusal(tokens, token)


async def test_only_so_many_tokens_are_remembered(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.auth.jwt.REMEMBERED_LIMIT", 3)
    tokens = await verifier(provider)
    for number in range(5):
        tokens.verify_now(provider.token(str(number)))
    assert len(tokens._remembered) == 3
