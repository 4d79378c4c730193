"""Which method a path is for, by the google.api.http rules of all services.

A literal goes before a variable, `*` before `**`, a verb before none, segment by segment from the left; the rule for one HTTP method before
the rule for any. So each path has one answer, whatever order the services come in; rules that could not be told apart are refused.
Nothing is looked at twice: finding costs at most one look at each segment of each rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gateway.services.binding import Binding, BindingError
from gateway.services.httprules import HttpRule
from gateway.services.method import Method
from gateway.services.templates import STARS, Template, TemplateError, decoded, parse_template

ANY = "*"
# What a request can be made with; a rule for any other could never be found.
HTTP_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", ANY})
PATH_SEGMENTS_LIMIT = 200


class RuleError(ValueError):
    """A rule that can't be served; the message names it, and the other where two are in each other's way."""


@dataclass(frozen=True, eq=False)
class Route:
    """One rule of one method, ready for requests: `binding` makes the request's message and picks what is answered."""

    method: Method
    rule: HttpRule
    template: Template
    binding: Binding

    def __str__(self) -> str:
        return f"{self.rule.method} {self.rule.template} of {self.method.full_name}"


@dataclass(frozen=True, eq=False)
class Match:
    """The route for a path, and the texts of its variables by the fields' paths, decoded."""

    route: Route
    variables: Mapping[str, str]


@dataclass
class _Node:
    """What may follow on a part of a path."""

    literals: dict[str, _Node] = field(default_factory=dict)
    star: _Node | None = None
    # The routes of those that end here, and of those that go on with **, by verb and HTTP method.
    ends: dict[str, dict[str, Route]] = field(default_factory=dict)
    open_ends: dict[str, dict[str, Route]] = field(default_factory=dict)


class Routes:
    """All rules of some methods. `reserved` are templates of paths that are somebody else's, the gateway's own."""

    def __init__(self, methods: Iterable[Method], reserved: Iterable[str] = ()) -> None:
        """Read all rules.

        Raises:
            RuleError: a rule makes no sense, is covered by a reserved path, or is the same as another one.
        """
        self._root = _Node()
        self.routes: list[Route] = []
        taken = [parse_template(path) for path in reserved]
        for method in methods:
            for rule in method.http_rules:
                self._add(_route(method, rule), taken)

    def match(self, http_method: str, path: str) -> Match | None:
        """Return the route for a path as it came, percent-encoded and without its query; None where there is none.

        Raises:
            GatewayError: `invalid-message`: a variable's escapes are broken.
        """
        for by_method, segments in self._find(path):
            route = by_method.get(http_method) or by_method.get(ANY)
            if route is not None:
                return Match(route, route.template.values(segments))
        return None

    def allowed(self, path: str) -> list[str]:
        """Return the HTTP methods that there are routes for at a path, sorted; none: nothing is served there."""
        return sorted({method for by_method, _ in self._find(path) for method in by_method})

    def _add(self, route: Route, taken: Iterable[Template]) -> None:
        for template in taken:
            if template.covers(route.template):
                raise RuleError(f"{route} is at a path of the gateway's own, {template.text}")
        node = self._root
        template = route.template
        for segment, is_literal in zip(template.segments, template.literal, strict=True):
            if is_literal:
                node = node.literals.setdefault(segment, _Node())
            elif segment != STARS:
                if node.star is None:
                    node.star = _Node()
                node = node.star
        by_method = (node.open_ends if template.is_open else node.ends).setdefault(template.verb, {})
        other = by_method.setdefault(route.rule.method, route)
        if other is not route:
            raise RuleError(f"{route} and {other} are at the same paths")
        self.routes.append(route)

    def _find(self, path: str) -> list[tuple[Mapping[str, Route], list[str]]]:
        """Return all routes for a path, the nearest first, each with the segments that its template is about."""
        segments = path.split("/")
        if segments[0] or len(segments) > PATH_SEGMENTS_LIMIT:
            return []
        segments = segments[1:]
        texts = [decoded(segment) for segment in segments]
        verbs = [(segments, texts, "")]
        last, colon, verb = segments[-1].rpartition(":")
        if colon:
            without = [*segments[:-1], last]
            verbs.insert(0, (without, [*texts[:-1], decoded(last)], decoded(verb) or ""))
        found: list[tuple[Mapping[str, Route], list[str]]] = []
        for parts, names, wanted in verbs:
            # What is put down last is looked at first.
            waiting: list[tuple[_Node, int, bool]] = [(self._root, 0, False)]
            while waiting:
                node, position, is_open = waiting.pop()
                if is_open:
                    found.append((node.open_ends[wanted], parts))
                    continue
                if wanted in node.open_ends:
                    waiting.append((node, position, True))
                if position == len(parts):
                    if wanted in node.ends:
                        found.append((node.ends[wanted], parts))
                    continue
                if node.star is not None and parts[position]:
                    waiting.append((node.star, position + 1, False))
                name = names[position]
                following = node.literals.get(name) if name is not None else None
                if following is not None:
                    waiting.append((following, position + 1, False))
        return found


def _route(method: Method, rule: HttpRule) -> Route:
    where = f"the rule {rule.method} {rule.template} of {method.full_name}"
    if rule.method not in HTTP_METHODS:
        raise RuleError(f"{where}: there is no HTTP method {rule.method}; allowed: {', '.join(sorted(HTTP_METHODS))}")
    try:
        template = parse_template(rule.template)
        binding = Binding(method, rule, template)
    except (TemplateError, BindingError) as exc:
        raise RuleError(f"{where}: {exc}") from exc
    return Route(method, rule, template, binding)
