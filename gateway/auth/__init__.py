"""Who a caller is: API keys, JWTs, and the passes (session cookies, one-time tickets) that browsers get for them.

Knows no HTTP framework and no run; the front doors read credentials out of requests and ask here. What came of it is a
Caller (gateway/caller.py).

`scopes` (words -> what a caller may do), `keys` (API keys), `jwks` and `jwt` (tokens of an identity provider),
`authenticator` (either of them), `passes` (signed stand-ins for a credential), `tickets` (passes for one URL, once).

Invariants: no secret is in a log line, an error's text or a repr; whatever comes from outside is bounded before it is looked
at; a credential that can't be checked is refused.
"""
