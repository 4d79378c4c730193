"""The names of the keys; `gateway.runlog.shared` has the table of what they hold.

The two keys of one run share the hash tag `{<run>}`, since every write of a batch touches just these.
"""

from __future__ import annotations


class Keys:
    """Makes key names. `prefix` begins every one of them."""

    __slots__ = (
        "_claim",
        "_inbox",
        "_owned",
        "_run",
        "_session",
        "_ticket",
        "epoch",
        "expiry",
        "gateways",
        "inbox_prefix",
        "run_prefix",
        "runs",
    )

    def __init__(self, prefix: str) -> None:
        self.runs = f"{prefix}runs"
        self.expiry = f"{prefix}expiry"
        self.gateways = f"{prefix}gateways"
        self.epoch = f"{prefix}epoch"
        self.inbox_prefix = f"{prefix}inbox:"
        self.run_prefix = f"{prefix}run:"
        self._run = self.run_prefix + "{"
        self._owned = f"{prefix}owned:"
        self._claim = f"{prefix}claim:"
        self._session = f"{prefix}session:"
        self._ticket = f"{prefix}ticket:"

    def run(self, run_id: str) -> str:
        """Return the key of a run's record."""
        return self._run + run_id + "}"

    def log(self, run_id: str) -> str:
        """Return the key of a run's stream of entries."""
        return self._run + run_id + "}:log"

    def owned(self, gateway_id: str) -> str:
        """Return the key of the set of open runs that a gateway owns."""
        return self._owned + gateway_id

    def inbox(self, gateway_id: str) -> str:
        """Return the key of the stream of commands for a gateway."""
        return self.inbox_prefix + gateway_id

    def claim(self, claim_key: str) -> str:
        """Return the key of an idempotency claim."""
        return self._claim + claim_key

    def session(self, session_id: str) -> str:
        """Return the key of a session."""
        return self._session + session_id

    def ticket(self, ticket: str) -> str:
        """Return the key of a one-time ticket that was used."""
        return self._ticket + ticket
