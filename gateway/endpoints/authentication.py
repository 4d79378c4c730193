"""Who sends a request: the Admission where authentication is on.

Reads the credential (credentials.py, cookie.py), has it checked (gateway/auth), and puts the caller in the request's scope;
express.py asks it ahead of everything else, for requests and sockets alike. What may come in without one: the open paths,
a preflight, which can't have any, and a socket of the subprotocol, which may send it in its first frame (`check_first_frame`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import HTTPConnection

from gateway.auth.authenticator import Authenticator
from gateway.auth.passes import Passes
from gateway.auth.scopes import scope_missing
from gateway.auth.tickets import TTL_S, Ticket, Tickets, TicketUses
from gateway.caller import NOBODY, Caller
from gateway.endpoints.cookie import SessionCookie
from gateway.endpoints.credentials import Credentials, read_credentials, remove_credentials
from gateway.errors import GatewayError
from gateway.runs.identity import parse_event_id
from gateway.runs.source import RunSource

# What tells nothing and changes nothing, or checks a credential by itself.
OPEN_PATHS = frozenset(
    {"/livez", "/readyz", "/docs", "/favicon.ico", "/console", "/client.js", "/client.d.ts", "/v1/signin", "/v1/signout"}
)
OPEN_FOLDERS = ("/problems/", "/docs/", "/console/", "/client/", "/static/")
SOCKET_PATH = "/v1/ws"
# What shows everybody's runs.
ADMIN_FOLDER = "/v1/admin/"

LookUp = Callable[[str, Caller], Awaitable[RunSource]]


class Authentication:
    """See the module; an Admission. `look_up` finds a caller's run, as Hub.look_up does."""

    def __init__(
        self,
        authenticator: Authenticator,
        sessions: Passes,
        cookie: SessionCookie,
        tickets: Tickets,
        uses: TicketUses,
        look_up: LookUp,
    ) -> None:
        self._authenticator = authenticator
        self._sessions = sessions
        self._cookie = cookie
        self._tickets = tickets
        self._uses = uses
        self._look_up = look_up

    def admit_now(self, connection: HTTPConnection) -> Caller | None:
        """See Admission: a ticket and a token whose key is yet unknown are worth a wait."""
        scope = connection.scope
        if _is_open(scope):
            return NOBODY
        given = read_credentials(scope)
        if given.ticket is not None:
            return None
        if given.bearer is not None:
            caller = self._authenticator.check_now(given.bearer)
        elif scope["type"] == "websocket" and scope["path"] == SOCKET_PATH:
            # Whether its cookie counts is not known before the first frame.
            caller = NOBODY
        else:
            caller = self._by_cookie(given, scope)
        if caller is not None:
            remove_credentials(scope)
            _check_path(caller, scope)
        return caller

    async def admit(self, connection: HTTPConnection) -> Caller:
        """See Admission."""
        scope = connection.scope
        given = read_credentials(scope)
        # Whatever comes of it: nothing behind this sees them, an error least of all.
        remove_credentials(scope)
        if given.ticket is not None:
            caller = await self._by_ticket(self._tickets.read(given.ticket), connection)
        else:
            assert given.bearer is not None, "nothing else is worth a wait"
            caller = await self._authenticator.check(given.bearer)
        _check_path(caller, scope)
        return caller

    async def check_first_frame(self, token: str | None, scope: Any) -> Caller:
        """Return who comes with a socket's first frame: by the token in it; None: by the cookie of the socket's handshake.

        Raises:
            GatewayError: the token is not good; without one, there is no cookie, or it does not count.
        """
        return self._by_cookie(read_credentials(scope), scope) if token is None else await self._authenticator.check(token)

    def _by_cookie(self, given: Credentials, scope: Any) -> Caller:
        session = self._cookie.find(given.cookies, scope) if given.cookies else None
        if session is None:
            detail = "This needs a credential: an Authorization header with Bearer and a key or token, a session cookie or a ticket"
            raise GatewayError("unauthenticated", detail)
        self._cookie.check(scope)
        return self._sessions.read(session).caller

    async def _by_ticket(self, ticket: Ticket, connection: HTTPConnection) -> Caller:
        """Return who comes with a ticket: for the first time, or to go on with the run that it started."""
        path: str = connection.scope["path"]
        if path != ticket.path:
            raise GatewayError("invalid-credential", "The ticket is for another path")
        place = parse_event_id(connection.headers.get("last-event-id", ""))
        # A socket of many runs goes on with none by that header, and might start others.
        if place is not None and path != SOCKET_PATH and await self._is_its_run(place[0], ticket):
            return ticket.caller
        if ticket.age_s > TTL_S:
            raise GatewayError("invalid-credential", f"The ticket is older than {TTL_S:.0f} seconds; ask for a new one")
        if not await self._uses.use_ticket(ticket.number, TTL_S + 1):
            raise GatewayError("invalid-credential", "The ticket was used before; ask for a new one")
        return ticket.caller

    async def _is_its_run(self, run_id: str, ticket: Ticket) -> bool:
        """Return whether a run that is known was started with this ticket, or is the one that the ticket's path names."""
        try:
            run = await self._look_up(run_id, ticket.caller)
        except GatewayError as error:
            if error.problem in ("run-not-found", "run-expired"):
                return False
            raise
        return run.ticket == ticket.number or ticket.path == f"/v1/runs/{run_id}/events"


def _is_open(scope: Any) -> bool:
    path: str = scope["path"]
    if path in OPEN_PATHS or path.startswith(OPEN_FOLDERS):
        return True
    return bool(scope["type"] == "http" and scope["method"] == "OPTIONS")


def _check_path(caller: Caller, scope: Any) -> None:
    if scope["path"].startswith(ADMIN_FOLDER) and not caller.grants.admin:
        raise scope_missing("admin")
