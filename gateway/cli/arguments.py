"""A tool's arguments as they stand on a command line.

key=value       typed by the tool's schema; a key that is given twice is a list
key=@file       the file's text, typed likewise: JSON for a list or an object; key=@- is stdin's
key=@@value     a value that begins with an @
@args.json, -   a JSON object of arguments, in a file or from stdin; what is written key=value goes before it
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from gateway.cli.terminal import WrongUsage
from gateway.endpoints.arguments import from_query
from gateway.errors import GatewayError

_DEPTH_LIMIT = 64


def read(words: Iterable[str], schema: Callable[[], Mapping[str, Any] | None], stdin: Callable[[], str]) -> dict[str, Any]:
    """Return the arguments. `schema` is asked for where a value needs one, `stdin` read where a word names it.

    Raises:
        WrongUsage: a word is none of these, a file can't be read, a text is no JSON object.
    """
    whole: dict[str, Any] = {}
    pairs: list[tuple[str, str]] = []
    for word in words:
        if word == "-":
            whole |= _object(stdin(), "stdin")
        elif word.startswith("@"):
            whole |= _object(_text(word[1:], stdin), word[1:])
        else:
            pairs.append(_pair(word, stdin))
    try:
        return whole | (from_query(pairs, schema(), depth_limit=_DEPTH_LIMIT) if pairs else {})
    except GatewayError as exc:
        raise WrongUsage(exc.detail) from exc


def _pair(word: str, stdin: Callable[[], str]) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals or not name:
        raise WrongUsage(f"{word!r} is no argument; they are written key=value, key=@file, @args.json, or - for stdin")
    if value.startswith("@@"):
        return name, value[1:]
    return name, _text(value[1:], stdin) if value.startswith("@") else value


def _text(path: str, stdin: Callable[[], str]) -> str:
    if path == "-":
        return stdin()
    try:
        return Path(path).read_text("utf-8")
    except (OSError, ValueError) as exc:
        raise WrongUsage(f"{path}: {exc}") from exc


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        raise WrongUsage(f"{where}: it is no JSON: {exc}") from exc
    if not isinstance(found, dict):
        raise WrongUsage(f"{where}: it must be a JSON object of arguments")
    return found
