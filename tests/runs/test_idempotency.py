from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import ToolCall
from gateway.caller import ANONYMOUS
from gateway.errors import GatewayError
from gateway.runs.idempotency import Claim, claim
from gateway.runs.policy import Cause, RunLimits
from tests.conftest import FakePool
from tests.runs.test_hub import call, hub_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def claimed(key: str = "k", tool: str = "count", arguments: Any = None, options: Any = (), streaming: bool = True) -> Claim:
    return claim(key, ANONYMOUS, tool, arguments or {}, options, streaming=streaming)


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "ü", "a\nb"])
def test_a_key_that_is_none_is_refused(key: str) -> None:
    with pytest.raises(GatewayError, match="1 to 255 printable ASCII characters") as caught:
        claimed(key)
    assert (caught.value.problem, caught.value.errors[0].field) == ("invalid-option", "Idempotency-Key")


@pytest.mark.parametrize("key", ["k", "x" * 255, '"8e03978e-40d5-43dd-bc93-6894a57f9324"', " ~"])
def test_any_printable_key_is_taken(key: str) -> None:
    assert claimed(key).key == key


@given(st.dictionaries(st.text(max_size=3), JSON, max_size=4), st.randoms())
def test_the_order_of_arguments_and_options_does_not_matter(arguments: dict[str, Any], rng: Any) -> None:
    options = [("_session", "s"), ("_pool", "p"), ("_meta.a", "1")]
    shuffled = list(arguments.items())
    rng.shuffle(shuffled)
    assert claimed(arguments=arguments, options=options) == claimed(arguments=dict(shuffled), options=options[::-1])


@pytest.mark.parametrize(
    "other",
    [
        claimed(tool="opaque"),
        claimed(arguments={"count": 1}),
        claimed(arguments={"count": "1"}),
        claimed(options=[("_session", "s")]),
        claimed(streaming=False),
    ],
)
def test_any_difference_is_another_fingerprint(other: Claim) -> None:
    assert other.fingerprint != claimed().fingerprint


async def test_the_same_claim_is_the_same_run_while_that_is_known() -> None:
    pool = FakePool()
    hub = hub_of(pool, kept_runs=1)
    first = hub.open(call(), claim=claimed())
    assert hub.open(call(), claim=claimed()) is first
    pool.calls[0].end()
    assert hub.open(call(), claim=claimed()) is first
    assert hub.claimed(claimed()) is first
    hub.open(call()).cancel(Cause.CLIENT)  # for which the first is forgotten
    assert hub.find_anybodys(first.id) is None
    assert hub.claimed(claimed()) is None
    assert hub.open(call(), claim=claimed()) is not first


async def test_the_same_key_for_another_request_is_a_conflict() -> None:
    hub = hub_of(FakePool())
    hub.open(call(), claim=claimed())
    for ask in (lambda other: hub.open(call(), claim=other), hub.claimed):
        with pytest.raises(GatewayError) as caught:
            ask(claimed(arguments={"count": 2}))
        assert (caught.value.problem, caught.value.http_status) == ("idempotency-conflict", 422)


async def test_a_request_that_was_refused_leaves_its_key_free() -> None:
    pool = FakePool(refusal=GatewayError("pool-saturated", "full"))
    hub = hub_of(pool)
    with pytest.raises(GatewayError, match="full"):
        hub.open(call(), claim=claimed())
    pool.refusal = None
    assert hub.open(ToolCall("opaque", {}, 60.0), claim=claimed(tool="opaque")).call.tool == "opaque"


async def test_a_run_with_a_key_keeps_its_chunks_for_those_who_ask_again() -> None:
    pool = FakePool()
    hub = hub_of(pool, run=RunLimits(log_bytes=10_000, plain_log_bytes=2_000))
    plain, keyed = hub.open(call()), hub.open(call(), claim=claimed())
    for worker in pool.calls:
        for _ in range(5):
            worker.send("x" * 800)
    assert (plain.log.next - plain.log.first, keyed.log.next - keyed.log.first) == (1, 5)


async def test_a_known_run_can_be_joined_while_the_gateway_drains() -> None:
    hub = hub_of(FakePool())
    run = hub.open(call(), claim=claimed())
    await hub.drain(0)
    assert hub.open(call(), claim=claimed()) is run
