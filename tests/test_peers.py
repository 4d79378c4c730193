from __future__ import annotations

import pytest

from gateway.errors import GatewayError
from gateway.peers import Peers

ANN, BOB = ("192.0.2.1", 1), ("192.0.2.2", 1)


def test_an_address_has_its_share_and_all_have_theirs() -> None:
    peers = Peers(3, 2)
    peers.enter(ANN)
    peers.enter(ANN)
    with pytest.raises(GatewayError, match=r"192.0.2.1 are open, which is server.connections_per_address_limit"):
        peers.enter(ANN)
    peers.enter(BOB)
    with pytest.raises(GatewayError, match=r"3 connections are open, which is server.connections_limit"):
        peers.enter(BOB)
    assert len(peers) == 3
    peers.leave(ANN)
    peers.enter(ANN)


def test_nothing_is_left_of_those_who_have_left() -> None:
    peers = Peers(10, 2)
    for client in (ANN, BOB, None):
        peers.enter(client)
    for client in (ANN, BOB, None):
        peers.leave(client)
    assert (len(peers), peers._by_address) == (0, {})


def test_without_an_address_s_limit_or_an_address_only_all_are_counted() -> None:
    for peers, client in ((Peers(3), ANN), (Peers(3, 1), None), (Peers(3, 1, {ANN[0]}), ANN)):
        for _ in range(3):
            peers.enter(client)
        with pytest.raises(GatewayError, match=r"connections_limit"):
            peers.enter(client)
