"""The path to a server, without HTTP: does it answer, is its certificate good, which HTTP versions does it speak to browsers?"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from dataclasses import dataclass

import httpx

from gateway.doctor.advice import cure
from gateway.doctor.finding import Finding, Grade, NoGateway

TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Path:
    """How a connection was made. `alpn` is what was agreed on; None without TLS, or where the server doesn't say."""

    connect_s: float
    tls: str | None
    alpn: str | None
    distrust: str = ""


async def connect(url: httpx.URL) -> Path:
    """Return how a connection to the URL's host was made; one whose certificate is not trusted has `distrust`.

    Raises:
        NoGateway: nobody answers there.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    port = url.port or (443 if url.scheme == "https" else 80)
    context: ssl.SSLContext | None = None
    if url.scheme == "https":
        context = ssl.create_default_context()
        context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        async with asyncio.timeout(TIMEOUT_S):
            _, writer = await asyncio.open_connection(url.host, port, ssl=context, server_hostname=url.host if context else None)
    except ssl.SSLCertVerificationError as exc:
        return Path(loop.time() - began, "not trusted", None, exc.verify_message)
    except ssl.SSLError as exc:
        raise NoGateway(f"{url}: no TLS: {exc.reason or exc}") from exc
    except (OSError, TimeoutError) as exc:
        raise NoGateway(f"{url}: {exc or 'no answer'}") from exc
    took_s = loop.time() - began
    secured: ssl.SSLObject | None = writer.get_extra_info("ssl_object")
    path = Path(took_s, secured.version() if secured else None, secured.selected_alpn_protocol() if secured else None)
    writer.close()
    # It has answered; how it says good-bye is of no interest.
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return path


def judge(path: Path, proxy: str, *, is_local: bool) -> list[Finding]:
    """Return what is to be said of a path."""
    numbers: dict[str, float | str | None] = {"connect_ms": round(path.connect_s * 1000, 1), "tls": path.tls, "alpn": path.alpn}
    how = f"connected in {path.connect_s * 1000:.1f} ms, {path.tls or 'no TLS'}"
    if path.distrust:
        advice = "install a certificate that clients trust (SSL_CERT_FILE names further authorities for this check)"
        return [Finding("connection", Grade.PROBLEM, f"the certificate is not trusted: {path.distrust}", advice, numbers)]
    found = [Finding("connection", Grade.OK, how, numbers=numbers)]
    if path.alpn == "h2":
        found.append(Finding("http version", Grade.OK, "HTTP/2 for browsers"))
    else:
        grade = Grade.NOTE if is_local else Grade.WARNING
        measured = "HTTP/1.1 only: a browser opens six connections to a host, so the seventh stream, in any tab, waits for ever"
        found.append(Finding("http version", grade, measured, f"{cure('http2', proxy)}; or many runs on one WebSocket, /v1/ws"))
    return found
