"""What a caller may take: counted without I/O, on a clock that the test turns."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.caller import ANONYMOUS, Caller
from gateway.errors import GatewayError
from gateway.runs import quotas
from gateway.runs.quotas import WINDOW_S, Account, CallerLimits, QuotaLimits, Quotas
from tests.runs.conftest import Clock

ALICE, BOB = Caller("alice"), Caller("bob")


@pytest.fixture
def turning(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr("gateway.runs.quotas.timers.running", lambda: clock)
    return clock


def account(book: Quotas, caller: Caller = ALICE) -> Account:
    found = book.account(caller)
    assert found is not None
    return found


def refusal(account: Account) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        account.check_start()
    assert (caught.value.problem, caught.value.http_status) == ("quota-exceeded", 429)
    return caught.value


def test_open_runs_are_limited_and_one_that_ends_makes_room(turning: Clock) -> None:
    alice = account(Quotas(QuotaLimits(CallerLimits(streams=2))))
    alice.open_runs = 2
    error = refusal(alice)
    assert (error.detail, error.retry_after_s) == ("2 runs are open; the caller's limit is 2 at once", 1.0)
    assert error.extra["violated-policies"] == ["streams"]
    alice.open_runs = 1
    alice.check_start()
    assert [quota.remaining for quota in alice.quotas()] == [1]


def test_starts_are_limited_for_each_caller_alone(turning: Clock) -> None:
    book = Quotas(QuotaLimits(CallerLimits(starts_per_minute=2)))
    account(book).check_start()
    account(book).check_start()
    error = refusal(account(book))
    assert error.quotas[0].name == "starts"
    assert error.quotas[0].remaining == 0
    assert 0 < (error.retry_after_s or 0) <= WINDOW_S
    account(book, BOB).check_start()


def test_bytes_are_limited_and_the_window_moves(turning: Clock) -> None:
    alice = account(Quotas(QuotaLimits(CallerLimits(bytes_per_minute=100))))
    alice.sent_bytes += 99
    alice.check_start()
    alice.sent_bytes += 1
    error = refusal(alice)
    assert (error.quotas[0].name, error.quotas[0].remaining) == ("bytes", 0)
    assert error.retry_after_s is not None
    turning.advance(error.retry_after_s - 0.1)
    refusal(alice)
    turning.advance(0.2)
    alice.check_start()


def test_bytes_that_came_later_stay_in_the_window_longer(turning: Clock) -> None:
    alice = account(Quotas(QuotaLimits(CallerLimits(bytes_per_minute=100))))
    alice.sent_bytes += 60
    turning.advance(30)
    alice.sent_bytes += 60
    first = refusal(alice).retry_after_s
    assert first is not None
    assert first <= 30
    turning.advance(first)
    assert alice.minute_bytes == 60
    alice.check_start()


def test_a_callers_own_limits_go_before_everybodys(turning: Clock) -> None:
    book = Quotas(QuotaLimits(CallerLimits(streams=1), {"alice": CallerLimits(streams=5), "bob": CallerLimits()}))
    assert account(book).limits.streams == 5
    assert book.account(BOB) is None
    assert account(book, Caller("carol")).limits.streams == 1


def test_each_anonymous_caller_has_the_limits_of_their_table(turning: Clock) -> None:
    book = Quotas(QuotaLimits(CallerLimits(streams=9), {"anonymous": CallerLimits(streams=1)}))
    here = account(book, replace(ANONYMOUS, address="10.0.0.7"))
    assert here.limits.streams == 1
    book.change(QuotaLimits(CallerLimits(streams=9), {"anonymous": CallerLimits(streams=2)}))
    assert here.limits.streams == 2


def test_changed_limits_hold_for_what_was_taken_before(turning: Clock) -> None:
    book = Quotas(QuotaLimits(CallerLimits(streams=5)))
    alice = account(book)
    alice.open_runs = 3
    book.change(QuotaLimits(CallerLimits(streams=3)))
    refusal(alice)
    book.change(QuotaLimits())
    alice.check_start()


@pytest.mark.parametrize("address", [None, "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_anonymous_callers_on_this_machine_are_counted_only_if_asked_for(turning: Clock, address: str | None) -> None:
    here = replace(ANONYMOUS, address=address)
    limits = CallerLimits(streams=1)
    assert Quotas(QuotaLimits(limits)).account(here) is None
    counting = Quotas(QuotaLimits(limits, counts_loopback=True))
    assert counting.account(here) is counting.account(ANONYMOUS) is not None


def test_anonymous_callers_elsewhere_are_told_apart_by_address_and_ipv6_by_its_network(turning: Clock) -> None:
    book = Quotas(QuotaLimits(CallerLimits(streams=1)))

    def at(address: str) -> Account:
        return account(book, replace(ANONYMOUS, address=address))

    assert at("10.0.0.7") is at("10.0.0.7") is at("::ffff:10.0.0.7") is not at("10.0.0.8")
    assert at("2001:db8:1:2::1") is at("2001:db8:1:2:ffff::9") is not at("2001:db8:1:3::1")


def test_accounts_with_nothing_to_remember_are_dropped_and_their_number_is_bounded(turning: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "ACCOUNTS_LIMIT", 2)
    book = Quotas(QuotaLimits(CallerLimits(streams=1)))
    account(book).open_runs = 1
    account(book, BOB)
    assert account(book, Caller("carol")) is account(book, Caller("dave"))
    turning.advance(WINDOW_S / quotas.SLOTS + 1)
    assert len(book) == 1
    account(book).open_runs = 0
    turning.advance(WINDOW_S)
    assert (len(book), turning.pending) == (0, [])


def test_who_reads_an_ended_run_again_after_a_while_is_charged(turning: Clock) -> None:
    book = Quotas(QuotaLimits(CallerLimits(bytes_per_minute=100)))
    kept_by_a_run = account(book)
    turning.advance(2 * WINDOW_S)
    assert len(book) == 0
    kept_by_a_run.check_bytes()
    kept_by_a_run.sent_bytes += 100
    refusal(account(book))
    turning.advance(WINDOW_S + 1)
    account(book).check_start()


class Everywhere:
    """What all gateways have counted."""

    def __init__(self, answer: tuple[bool, int, float] | None) -> None:
        self.answer = answer

    async def hit(self, name: str, limit: int) -> tuple[bool, int, float] | None:
        return self.answer


async def test_what_other_gateways_have_counted_refuses_and_is_told(turning: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.runs.quotas.time.time", lambda: 1000.0)
    alice = account(Quotas(QuotaLimits(CallerLimits(starts_per_minute=10))))
    await alice.check_everywhere(Everywhere((True, 3, 1030.0)))
    assert (alice.quotas()[0].remaining, alice.quotas()[0].reset_s) == (3, 30.0)
    with pytest.raises(GatewayError) as caught:
        await alice.check_everywhere(Everywhere((False, 0, 1012.0)))
    assert (caught.value.problem, caught.value.retry_after_s) == ("quota-exceeded", 12.0)


async def test_without_their_answer_this_gateway_counts_alone(turning: Clock) -> None:
    alice = account(Quotas(QuotaLimits(CallerLimits(starts_per_minute=10))))
    await alice.check_everywhere(Everywhere(None))
    alice.check_start()
    assert alice.quotas()[0].remaining == 9
