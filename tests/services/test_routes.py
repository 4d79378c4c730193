"""google.api.http: which method a path is for, and the message that a request becomes."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.services.directory import Directory
from gateway.services.httprules import HttpRule
from gateway.services.method import Method
from gateway.services.routes import Route, Routes, RuleError
from gateway.services.templates import parse_template
from tests.services.compiled import files, message
from tests.services.library import LIBRARY


@pytest.fixture(scope="module")
def methods() -> dict[str, Method]:
    return dict(_directory().services[LIBRARY].methods)


@pytest.fixture(scope="module")
def routes(methods: dict[str, Method]) -> Routes:
    return Routes(methods.values())


def with_rules(method: Method, *rules: HttpRule) -> Method:
    return dataclasses.replace(method, http_rules=rules)


def get(template: str, *, method: str = "GET", body: str = "", response_body: str = "") -> HttpRule:
    return HttpRule(method, template, body, response_body)


def test_paths_are_for_methods(routes: Routes) -> None:
    def found(method: str, path: str) -> tuple[str, dict[str, str]] | None:
        match = routes.match(method, path)
        return match and (match.route.method.name, dict(match.variables))

    assert found("GET", "/v1/library/shelves/1/books/2") == ("GetBook", {"name": "shelves/1/books/2"})
    assert found("GET", "/v1/library/books/one%2Ftwo") == ("GetBook", {"name": "one/two"})
    assert found("DELETE", "/v1/library/shelves/1/books/2") == ("DeleteBook", {"name": "shelves/1/books/2"})
    assert found("GET", "/v1/library/shelves/1/books") == ("ListBooks", {"parent": "shelves/1"})
    assert found("POST", "/v1/library/shelves/1/books") == ("CreateBook", {"parent": "shelves/1"})
    assert found("PATCH", "/v1/library/shelves/1/books/2") == ("UpdateBook", {"book.name": "shelves/1/books/2"})
    assert found("POST", "/v1/library/shelves/1/books/2:move") == ("MoveBook", {"name": "shelves/1/books/2"})
    assert found("GET", "/v1/library/shelves/1:watch") == ("WatchShelf", {"shelf": "shelves/1"})
    assert found("HEAD", "/v1/library/files/a/b%2Fc/%64") == ("StatFile", {"path": "a/b%2Fc/d"})
    assert found("GET", "/v1/library/files/a/b:stat") == ("StatFile", {"path": "a/b"})
    assert found("HEAD", "/v1/library/files") == ("StatFile", {"path": ""})
    assert found("GET", "/v1/library/shelves/1/books/2/pages") is None
    assert found("GET", "/v1/library/shelves//books/2") is None
    assert found("PUT", "/v1/library/shelves/1/books") is None
    assert routes.allowed("/v1/library/shelves/1/books") == ["GET", "POST"]
    assert routes.allowed("/elsewhere") == []


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a/b", "/a/b"),
        ("/a/c", "/a/{name}"),
        ("/c/b", "/{name}/b"),
        ("/c/d", "/{name}/*"),
        ("/a/c/d", "/a/**"),
        ("/b/c/d", "/**"),
        ("/a/b:go", "/a/{name}:go"),
        ("/a", "/a/**"),
        ("/", "/**"),
    ],
)
def test_the_nearest_template_is_meant_whatever_the_order(methods: dict[str, Method], path: str, expected: str) -> None:
    templates = ["/**", "/a/**", "/{name}/*", "/{name}/b", "/a/{name}", "/a/b", "/a/{name}:go"]
    for ordered in (templates, templates[::-1]):
        routes = Routes([with_rules(methods["GetBook"], *map(get, ordered))])
        match = routes.match("GET", path)
        assert match is not None
        assert match.route.template.text == expected


def test_a_rule_for_one_http_method_goes_before_one_for_any(methods: dict[str, Method]) -> None:
    routes = Routes([with_rules(methods["GetBook"], get("/a", method="*"), get("/a"))])
    for http_method, rule in (("GET", "GET"), ("POST", "*")):
        match = routes.match(http_method, "/a")
        assert match is not None
        assert match.route.rule.method == rule


@pytest.mark.parametrize(
    ("rule", "reserved", "words"),
    [
        (get("/v1/tools/{name}"), "/v1/tools/{tool}", "is at a path of the gateway's own, /v1/tools/{tool}"),
        (get("/v1/runs/special:stop"), "/v1/runs/{run}", "is at a path of the gateway's own"),
        (get("/console/a/b"), "/console/**", "is at a path of the gateway's own"),
        (get("/livez"), "/livez", "is at a path of the gateway's own"),
        (get("v1"), "/", "must begin with a slash"),
        (get("/a/{name"), "/", "is no"),
        (get("/a/{name=**}/b"), "/", r"\*\* must be the last segment"),
        (get("/a:"), "/", "ends with a colon"),
        (get("/{name}/{name}"), "/", "has name twice"),
        (get("/a/{nothing}"), "/", "has no field nothing; there are: name, edition, view"),
        (get("/a/{view}"), "/", "view is repeated or a message"),
        (get("/a/{view.parts}"), "/", "view.parts is repeated or a message"),
        (get("/a", body="nothing"), "/", "body names nothing, which"),
        (get("/a", response_body="nothing"), "/", "response_body names nothing, which"),
        (get("/a", method="FETCH"), "/", "there is no HTTP method FETCH; allowed: "),
    ],
)
def test_a_rule_that_cannot_be_served_is_refused_by_its_name(methods: dict[str, Method], rule: HttpRule, reserved: str, words: str) -> None:
    with pytest.raises(RuleError, match=words) as caught:
        Routes([with_rules(methods["GetBook"], rule)], [reserved])
    assert f"{LIBRARY}/GetBook" in str(caught.value)


def test_rules_that_differ_from_the_gateways_paths_are_served(methods: dict[str, Method]) -> None:
    rules = [get("/v1/{name}"), get("/v1/tools/{name}/more"), get("/v1/tools:all"), get("/{name=**}")]
    Routes([with_rules(methods["GetBook"], *rules)], ["/v1/tools", "/v1/tools/{tool}", "/v1/tools/{tool}/call", "/console/**"])


def test_two_rules_at_the_same_paths_are_refused_with_both_names(methods: dict[str, Method]) -> None:
    one, two = with_rules(methods["GetBook"], get("/a/{name}")), with_rules(methods["StatFile"], get("/a/{path=*}"))
    with pytest.raises(RuleError) as caught:
        Routes([one, two])
    assert str(caught.value) == (f"GET /a/{{path=*}} of {LIBRARY}/StatFile and GET /a/{{name}} of {LIBRARY}/GetBook are at the same paths")


def bound(routes: Routes, method: str, path: str, query: Any = (), body: Any = None) -> tuple[Route, Any]:
    match = routes.match(method, path)
    assert match is not None
    value = match.route.binding.bind(match.variables, query, body)
    request = match.route.method.request
    return match.route, message(request.full_name.removeprefix("test.")).FromString(request.from_json(value))


def test_a_query_is_typed_by_its_fields(routes: Routes) -> None:
    query = [
        ("page_size", "5"),
        ("genres", "NOVEL"),
        ("genres", "2"),
        ("since", "2024-01-02T03:04:05Z"),
        ("age", "1.5s"),
        ("fields", "title,lentTo"),
        ("lent", "false"),
        ("rating", "4.5"),
        ("token", "AAE="),
    ]
    _, request = bound(routes, "GET", "/v1/library/shelves/1/books", query)
    assert (request.parent, request.page_size, [*request.genres], request.since.seconds) == ("shelves/1", 5, [1, 2], 1704164645)
    assert (request.age.nanos, [*request.fields.paths], request.HasField("lent"), request.lent) == (
        500_000_000,
        ["title", "lent_to"],
        True,
        False,
    )
    assert (request.rating, request.token) == (4.5, b"\x00\x01")


def test_nested_fields_are_named_by_their_paths_in_either_spelling(routes: Routes) -> None:
    query = [("view.with_cover", "true"), ("view.parts", "a"), ("view.parts", "b"), ("edition", "9007199254740993")]
    for names in (query, [("view.withCover", "true"), *query[1:]]):
        _, request = bound(routes, "GET", "/v1/library/shelves/1/books/2", names)
        assert (request.view.with_cover, [*request.view.parts], request.edition) == (True, ["a", "b"], 9007199254740993)


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (("page_sise", "5"), "is no field of test.library.v1.ListBooksRequest; did you mean page_size? allowed: page_size, genres, since"),
        (("page_size", "five"), "must be an integer, not 'five'"),
        (("rating", "much"), "must be a number"),
        (("lent", "yes"), "must be true or false"),
        (("genres", "PROSE"), "must be one of GENRE_UNSPECIFIED, NOVEL, POEMS, or its number"),
        (("parent", "shelves/2"), "stands in the path or in the body"),
        (("labels", "a"), "is a message, which a query can't say"),
        (("labels.a", "b"), "is no field of"),
        (("like", "a"), "is a message, which a query can't say"),
        (("since.seconds", "5"), "is no field of"),
        (("rating", "1"), "is there twice"),
    ],
)
def test_a_parameter_that_does_not_fit_is_told_of(routes: Routes, pair: tuple[str, str], words: str) -> None:
    with pytest.raises(GatewayError) as caught:
        bound(routes, "GET", "/v1/library/shelves/1/books", [("rating", "2"), pair])
    assert caught.value.http_status == 400
    (error,) = caught.value.errors
    assert error.field == pair[0]
    assert words in error.detail


def test_a_message_in_a_query_is_told_of_with_its_fields(routes: Routes) -> None:
    with pytest.raises(GatewayError) as caught:
        bound(routes, "GET", "/v1/library/shelves/1/books/2", [("view", "{}")])
    assert caught.value.errors[0].detail == "is a message: name its fields (view.with_cover, view.parts)"


def test_the_body_is_a_field_or_all_of_the_message(routes: Routes) -> None:
    _, request = bound(routes, "POST", "/v1/library/shelves/1/books", [("dry_run", "true")], {"title": "Emma", "lent_to": "Ann"})
    assert (request.parent, request.book.title, request.book.lent_to, request.dry_run) == ("shelves/1", "Emma", "Ann", True)
    _, request = bound(routes, "POST", "/v1/library/shelves/1/books/2:move", [], {"other_shelf": "shelves/3"})
    assert (request.name, request.other_shelf) == ("shelves/1/books/2", "shelves/3")


def test_a_body_may_repeat_what_the_path_says_and_nothing_else(routes: Routes) -> None:
    path = "/v1/library/shelves/1/books/2"
    body = {"name": "shelves/1/books/2", "title": "Emma"}
    _, request = bound(routes, "PATCH", path, [("update_mask", "title")], body)
    assert (request.book.name, request.book.title, [*request.update_mask.paths]) == ("shelves/1/books/2", "Emma", ["title"])
    assert body == {"name": "shelves/1/books/2", "title": "Emma"}
    with pytest.raises(GatewayError, match="in the path and something else in the body") as caught:
        bound(routes, "PATCH", path, [], {"name": "shelves/1/books/3"})
    assert caught.value.errors[0].field == "/book/name"
    with pytest.raises(GatewayError, match="book must be an object"):
        bound(routes, "PUT", path, [], {"book": 5})


@pytest.mark.parametrize(
    ("method", "path", "query", "body", "words"),
    [
        ("POST", "/v1/library/shelves/1/books/2:move", [("name", "a")], {}, "takes no query parameters"),
        ("POST", "/v1/library/shelves/1/books/2:move", [], [1], "the body must be a JSON object"),
        ("GET", "/v1/library/shelves/1/books/2", [], {"a": 1}, "takes no body"),
        ("GET", "/v1/library/books/%zz", [], None, "has an escape that is none"),
        ("GET", "/v1/library/books/%ff", [], None, "isn't UTF-8"),
    ],
)
def test_a_request_that_does_not_fit_its_rule_is_told_so(
    routes: Routes, method: str, path: str, query: list[tuple[str, str]], body: Any, words: str
) -> None:
    with pytest.raises(GatewayError, match=words) as caught:
        bound(routes, method, path, query, body)
    assert (caught.value.problem, len(caught.value.errors)) == ("invalid-message", 1)


def test_an_answer_may_be_one_of_its_fields(routes: Routes) -> None:
    match = routes.match("GET", "/v1/library/shelves/1/books")
    assert match is not None
    answer = message("library.v1.ListBooksResponse")(books=[{"name": "a"}], total=1)
    response = match.route.binding.response
    assert response.to_json(answer.SerializeToString()) == b'[{"name":"a"}]'
    assert response.to_json_all([b"", b""]) == [b"[]", b"[]"]


def test_the_parameters_and_the_path_are_listed_for_descriptions(routes: Routes) -> None:
    match = routes.match("GET", "/v1/library/shelves/1/books/2")
    assert match is not None
    assert [parameter.name for parameter in match.route.binding.parameters] == ["edition", "view.with_cover", "view.parts"]
    assert match.route.template.openapi() == ("/v1/library/{name}", {"name": "^shelves/[^/]+/books/[^/]+$"})
    assert [str(route) for route in routes.routes][-1] == f"GET /v1/library/{{shelf=shelves/*}}:watch of {LIBRARY}/WatchShelf"


def test_a_path_of_very_many_segments_is_nobodys(routes: Routes) -> None:
    assert routes.match("HEAD", "/v1/library/files" + "/a" * 10_000) is None


SEGMENTS = st.sampled_from(["a", "b", "{}", "*", "caf%C3%A9"])
TEMPLATES = st.builds(
    lambda segments, last, verb: "/" + "/".join([*segments, *last]) + verb,
    st.lists(SEGMENTS, min_size=1, max_size=3),
    st.sampled_from([[], ["**"], ["{=**}"], ["{=a/*}"], ["{=*/b}"]]),
    st.sampled_from(["", ":go"]),
)
PATHS = st.builds(
    lambda segments, verb: "/" + "/".join(segments) + verb,
    st.lists(st.sampled_from(["a", "b", "c", "%61", "café", "caf%C3%A9", "a:go", ""]), max_size=5),
    st.sampled_from(["", ":go", ":stop"]),
)


def named(template: str) -> str:
    """A template with names for its variables, fields that the message has."""
    names = iter(["name", "title", "pages", "cover"])
    return re.sub(r"\{", lambda _: "{" + next(names), template)


def nearest(templates: list[str], path: str) -> str | None:
    """What the module says of itself, tried out with each template."""
    found = []
    for template in templates:
        plain = re.sub(r"\{[a-z_.]*=?([^}]*)\}", lambda inner: inner[1] or "*", template)
        body, _, verb = plain.partition(":")
        text = "/".join(unquote(part) for part in path.split("/"))
        if verb and not text.endswith(f":{verb}"):
            continue
        parts = [unquote(part) for part in body[1:].split("/")]
        forms = ["(/.*)?" if part == "**" else "/[^/]+" if part == "*" else "/" + re.escape(part) for part in parts]
        if re.fullmatch("".join(forms), text.removesuffix(f":{verb}") if verb else text):
            found.append((not verb, [2 if part == "**" else part == "*" for part in parts], template))
    return min(found)[2] if found else None


@settings(max_examples=300)
@given(st.lists(TEMPLATES, min_size=1, max_size=8), PATHS)
def test_a_path_is_for_the_nearest_template_of_all(templates: list[str], path: str) -> None:
    method = dataclasses.replace(_directory().services[LIBRARY].methods["AddBooks"], http_rules=())
    # Of those that match the same paths one may be there.
    kept = [*{parse_template(named(template)).shape: named(template) for template in templates}.values()]
    match = Routes([with_rules(method, *map(get, kept))]).match("GET", path)
    assert (match and match.route.template.text) == nearest(kept, path)
    if match is not None:
        assert match.variables.keys() == {variable.field for variable in match.route.template.variables}
        assert all("%" not in text for text in match.variables.values())


@functools.cache
def _directory() -> Directory:
    return Directory(files())
