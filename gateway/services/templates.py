"""The path templates of google.api.http: `/v1/{name=shelves/*/books/*}:move`.

Made once for each rule; routes.py finds the one that a path fits.

    Template = "/" Segments [ ":" LITERAL ]          Segment  = "*" | "**" | LITERAL | Variable
    Segments = Segment { "/" Segment }               Variable = "{" FieldPath [ "=" Segments ] "}"

Source: google/api/http.proto, "Path template syntax".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote, unquote_to_bytes

from gateway.errors import FieldError, GatewayError

STAR: Final = "*"
# Any number of segments, none included; always the last.
STARS: Final = "**"

LENGTH_LIMIT = 2_000
SEGMENTS_LIMIT = 64

_FIELD_PATH = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_LITERAL = re.compile(r"[^/{}*?#\s]+")
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SLASH_ESCAPE = re.compile(r"(%2[Ff])")


class TemplateError(ValueError):
    """A path template that is none; the message says where."""


@dataclass(frozen=True)
class Variable:
    """A field of the request that stands in the path: which segments it takes, `end` None: all the rest."""

    field: str
    start: int
    end: int | None

    @property
    def is_single(self) -> bool:
        """Whether it is one segment, in which an escaped slash is a slash."""
        return self.end == self.start + 1


@dataclass(frozen=True)
class Template:
    """`segments` are literal texts (without escapes), STAR and STARS; `verb` is empty where there is none."""

    text: str
    segments: tuple[str, ...]
    # Which of the segments are literals: one may be a "*" by an escape.
    literal: tuple[bool, ...]
    variables: tuple[Variable, ...]
    verb: str

    @property
    def is_open(self) -> bool:
        """Whether it ends with any number of segments."""
        return bool(self.segments) and self.segments[-1] == STARS and not self.literal[-1]

    @property
    def shape(self) -> tuple[tuple[bool, str], ...]:
        """What it matches, whatever its variables are called: two templates of the same shape match the same paths."""
        return (*zip(self.literal, self.segments, strict=True), (True, self.verb))

    def covers(self, other: Template) -> bool:
        """Whether this one matches every path that the other does."""
        mine, others = self.segments[:-1] if self.is_open else self.segments, other.segments
        if len(others) < len(mine) or (len(others) > len(mine) and not self.is_open) or (other.is_open and not self.is_open):
            return False
        if self.verb and self.verb != other.verb:
            return False
        for position, segment in enumerate(mine):
            theirs = others[position]
            if self.literal[position]:
                if other.verb and not self.verb and position == len(others) - 1:
                    # To this one, which has no verb, it is a part of the segment.
                    theirs = f"{theirs}:{other.verb}"
                if not other.literal[position] or theirs != segment:
                    return False
            elif theirs == STARS and not other.literal[position]:
                return False
        return True

    def values(self, segments: Sequence[str]) -> dict[str, str]:
        """Return the variables' values in a path that matches. `segments` are as they came, without the verb.

        Raises:
            GatewayError: `invalid-message`: an escape is broken, or not UTF-8.
        """
        return {
            variable.field: _value(variable, segments[variable.start : variable.end if variable.end is not None else len(segments)])
            for variable in self.variables
        }

    def openapi(self) -> tuple[str, dict[str, str]]:
        """Return the path as OpenAPI writes it, `/v1/{name}:move`, and a regular expression for each variable."""
        parts: list[str] = []
        patterns: dict[str, str] = {}
        position = 0
        unnamed = 0
        starts = {variable.start: variable for variable in self.variables}
        while position < len(self.segments):
            variable = starts.get(position)
            end = position + 1
            if variable is not None:
                end = len(self.segments) if variable.end is None else variable.end
                name = variable.field
            elif not self.literal[position]:
                unnamed += 1
                name = f"segment{unnamed}"
            else:
                parts.append(quote(self.segments[position], safe="-._~!$&'()*+,;=:@"))
                position = end
                continue
            parts.append(f"{{{name}}}")
            patterns[name] = "^" + "/".join(self._pattern(index) for index in range(position, end)) + "$"
            position = end
        return "/" + "/".join(parts) + (f":{self.verb}" if self.verb else ""), patterns

    def _pattern(self, index: int) -> str:
        if self.literal[index]:
            return re.escape(self.segments[index])
        return ".*" if self.segments[index] == STARS else "[^/]+"


def parse_template(text: str) -> Template:
    """Return the template that `text` is.

    Raises:
        TemplateError: it is none, or longer than LENGTH_LIMIT or SEGMENTS_LIMIT.
    """
    if not text.startswith("/") or len(text) > LENGTH_LIMIT:
        raise TemplateError(f"{text[:100]!r} must begin with a slash and have at most {LENGTH_LIMIT:,} characters")
    segments: list[str] = []
    literal: list[bool] = []
    variables: list[Variable] = []
    body, verb = _split_verb(text)

    def add(segment: str) -> None:
        if segments and segments[-1] == STARS and not literal[-1]:
            raise TemplateError(f"{text!r}: ** must be the last segment")
        if segment in (STAR, STARS):
            segments.append(segment)
            literal.append(False)
        elif _LITERAL.fullmatch(segment) and not _BROKEN_ESCAPE.search(segment):
            segments.append(unquote(segment))
            literal.append(True)
        else:
            raise TemplateError(f"{text!r}: {segment!r} is no segment: allowed are a name, *, ** and {{field}}")
        if len(segments) > SEGMENTS_LIMIT:
            raise TemplateError(f"{text[:100]!r}… has more than {SEGMENTS_LIMIT} segments")

    if text == "/":
        return Template(text, ("",), (True,), (), "")
    for part in _parts(body):
        if not part.startswith("{"):
            add(part)
            continue
        field, _, inner = part[1:-1].partition("=")
        if not part.endswith("}") or not _FIELD_PATH.fullmatch(field) or "{" in inner:
            raise TemplateError(f"{text!r}: {part!r} is no variable: {{field}} or {{field=segments}}")
        start = len(segments)
        for segment in (inner or STAR).split("/"):
            add(segment)
        if any(variable.field == field for variable in variables):
            raise TemplateError(f"{text!r} has {field} twice")
        end = None if segments[-1] == STARS and not literal[-1] else len(segments)
        variables.append(Variable(field, start, end))
    return Template(text, tuple(segments), tuple(literal), tuple(variables), verb)


def _split_verb(text: str) -> tuple[str, str]:
    """Return the template without its first slash and its verb, and the verb."""
    last = max(text.rfind("/") if "}" not in text else text.find("/", text.rfind("}")), text.rfind("}"), 0)
    head, colon, verb = text[last:].rpartition(":")
    if not colon:
        return text[1:], ""
    if not verb:
        raise TemplateError(f"{text!r} ends with a colon")
    if not _LITERAL.fullmatch(verb) or _BROKEN_ESCAPE.search(verb):
        raise TemplateError(f"{text!r}: {verb!r} is no verb")
    return (text[:last] + head)[1:], unquote(verb)


def _parts(text: str) -> Iterator[str]:
    """Yield what stands between the slashes that are outside of braces."""
    depth = start = 0
    for position, character in enumerate(text):
        if character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
        elif character == "/" and depth == 0:
            yield text[start:position]
            start = position + 1
    yield text[start:]


def decoded(segment: str) -> str | None:
    """Return a path's segment without its escapes; None where they are broken or not UTF-8."""
    if "%" not in segment:
        return segment
    if _BROKEN_ESCAPE.search(segment):
        return None
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        return None


def _value(variable: Variable, segments: Sequence[str]) -> str:
    if variable.is_single:
        texts = [decoded(segments[0])]
    else:
        # The slash of an escape is the client's, those between the segments are the path's: so it stays what it is.
        parts = _SLASH_ESCAPE.split("/".join(segments))
        texts = [part if _SLASH_ESCAPE.fullmatch(part) else decoded(part) for part in parts]
    if None in texts:
        raise GatewayError(
            "invalid-message",
            f"{variable.field} in the path has an escape that is none, or that isn't UTF-8",
            errors=[FieldError(variable.field, "must be text in UTF-8, percent-encoded")],
        )
    return "".join(text for text in texts if text is not None)
