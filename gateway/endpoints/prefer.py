"""The Prefer header (RFC 7240): `respond-async`, and how long a client would `wait`. What it doesn't know it passes over."""

from __future__ import annotations

from dataclasses import dataclass

HEADER = "Prefer"
# Its name as an ASGI scope has it.
FIELD = b"prefer"
HEADER_LIMIT = 1024


@dataclass(frozen=True, slots=True)
class Preferences:
    """What a client would like. `wait_s`: seconds to wait for the end before it is told that there is none yet; 0: none."""

    respond_async: bool = False
    wait_s: int = 0

    def applied(self) -> dict[str, str]:
        """Return the header that says what was done of it; none where nothing was."""
        said = ["respond-async"] if self.respond_async else []
        said += [f"wait={self.wait_s}"] if self.wait_s else []
        return {"Preference-Applied": ", ".join(said)} if said else {}


NONE = Preferences()


def read(header: str | None, *, wait_limit_s: int) -> Preferences:
    """Return the preferences in a header; a longer wait is cut to `wait_limit_s`, as the answer's Preference-Applied says."""
    if not header:
        return NONE
    respond_async, wait_s = False, 0
    for part in header[:HEADER_LIMIT].split(","):
        name, _, value = part.partition(";")[0].partition("=")
        name, value = name.strip().lower(), value.strip().strip('"')
        if name == "respond-async":
            respond_async = True
        elif name == "wait" and not wait_s and value.isascii() and value.isdigit() and len(value) <= 9:
            wait_s = min(int(value), wait_limit_s)
    return Preferences(respond_async, wait_s)
