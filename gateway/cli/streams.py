"""`gateway stream` and `gateway attach`: a run's chunks as they come, in the form that suits where they go.

Ctrl-C cancels a run that `stream` has started, and leaves one that was joined; a second Ctrl-C doesn't wait for the gateway's word.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer

from gateway.cli.catalogue import read_arguments
from gateway.cli.lines import JsonLines, Lines, Raw, View
from gateway.cli.live import LiveView
from gateway.cli.options import DEFAULT_URL, Arguments, Key, Pool, Session, Timeout, Tool, Url
from gateway.cli.terminal import INTERRUPTED, WrongUsage, connected, note, out
from gateway.client import End, Stream
from gateway.client.reading import OnGap

JsonOption = Annotated[bool, typer.Option("--json", help="Every event as a JSON line, as the gateway says it as JSON lines.")]
RawOption = Annotated[bool, typer.Option("--raw", help="Text and bytes as they are, with nothing between them.")]
LinesOption = Annotated[bool, typer.Option("--lines", help="Lines on a terminal too, where there else is a live view.")]


class Overflow(StrEnum):
    """What happens when our reading lags."""

    BLOCK = "block"
    LATEST = "latest"
    DISCONNECT = "disconnect"


OverflowOption = Annotated[Overflow | None, typer.Option(help="When we lag: the tool waits, we are moved to the newest chunk, or are cut.")]


def stream(
    tool: Tool,
    arguments: Arguments = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: JsonOption = False,
    raw: RawOption = False,
    lines: LinesOption = False,
    pool: Pool = None,
    session: Session = None,
    timeout: Timeout = None,
    on_disconnect: Annotated[
        str | None, typer.Option(help="cancel, continue or grace:30s; else leaving cancels, and a cut has 10 s to be mended.")
    ] = None,
    overflow: OverflowOption = None,
) -> None:
    """Execute a tool and print its chunks as they come: a live view on a terminal, a JSON value a line elsewhere."""
    with connected(url, key) as client:
        _checked(as_json, raw, lines)
        values = read_arguments(client, tool, pool, arguments)
        following = client.stream(
            tool,
            values,
            on_gap=_on_gap(as_json, overflow),
            pool=pool,
            session_id=session,
            timeout_s=timeout,
            on_disconnect=on_disconnect,
            overflow=overflow,
        )
        _follow(following, lambda: _view(as_json, raw, lines, values), is_ours=on_disconnect is None)
    _conclude(following.end, quiet=as_json or raw)


def attach(
    run: Annotated[str, typer.Argument(help="The run's id, or an event id, <run>.<number>, to go on after.")],
    url: Url = DEFAULT_URL,
    key: Key = None,
    from_: Annotated[str, typer.Option("--from", help="start, live, or the number of the last chunk that you have.")] = "start",
    observe: Annotated[bool, typer.Option("--observe", help="Read along without slowing the tool or keeping it alive.")] = False,
    as_json: JsonOption = False,
    raw: RawOption = False,
    lines: LinesOption = False,
    overflow: OverflowOption = None,
) -> None:
    """Read a run that is there, live or ended."""
    with connected(url, key) as client:
        _checked(as_json, raw, lines)
        try:
            role = "observer" if observe else None
            following = client.attach(run, from_, on_gap=_on_gap(as_json, overflow), role=role, overflow=overflow)
        except ValueError as exc:
            raise WrongUsage(str(exc).replace("from_ is", "--from is")) from exc
        _follow(following, lambda: _view(as_json, raw, lines, {}), is_ours=False)
    _conclude(following.end, quiet=as_json or raw)


def _follow(following: Stream, view: Callable[[], View], *, is_ours: bool) -> None:
    """Show a stream to its end, or until Ctrl-C. The view is made when there is something to show."""
    try:
        with following, contextlib.closing(view()) as showing:
            for event in following.events():
                showing.show(event)
    except KeyboardInterrupt:
        run_id = following.run_id
        if not is_ours:
            note(f"left {run_id}; it goes on as its policy says: gateway attach {following.last_event_id or run_id}")
        elif following.is_cancelled:
            note(f"cancelled {run_id}")
        else:
            note(f"left {run_id or 'before the run had begun'}; the gateway cancels it when nobody has come back in 10 s")
        raise typer.Exit(INTERRUPTED) from None


def _checked(as_json: bool, raw: bool, lines: bool) -> None:
    """Return if at most one way to show a stream is asked for. Raises WrongUsage."""
    if as_json + raw + lines > 1:
        raise WrongUsage("one of --json, --raw and --lines")


def _view(as_json: bool, raw: bool, lines: bool, arguments: Mapping[str, Any]) -> View:
    """Return what shows a stream."""
    if as_json:
        return JsonLines()
    if raw:
        return Raw()
    return Lines() if lines or not sys.stdout.isatty() else LiveView(out, arguments)


def _on_gap(as_json: bool, overflow: Overflow | None) -> OnGap:
    """Say gaps where they can be said or were asked for; else the output would be taken for whole."""
    return "yield" if as_json or overflow is Overflow.LATEST else "raise"


def _conclude(end: End | None, *, quiet: bool) -> None:
    if end is not None and not quiet:
        # A gRPC service's call says of no worker that it was there.
        where = f" on {worker}" if (worker := end.metadata.get("worker_id")) else ""
        note(f"ok: {end.chunks} chunks in {end.timing.get('total_ms')} ms{where}")
