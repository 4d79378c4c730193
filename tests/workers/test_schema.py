"""Which schemas of a worker's are used, and what is said of the others."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.workers.schema import SchemaUnusable, read_schema

LOOP = {"$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}]}}, "properties": {"x": {"$ref": "#/$defs/A"}}}


@pytest.mark.parametrize("schema", [{}, {"type": "object", "properties": {"x": {"type": "integer"}}}, {"$ref": "#"}, LOOP])
def test_a_schema_that_can_be_used_is_returned_as_it_is(schema: dict[str, Any]) -> None:
    assert read_schema(json.dumps(schema)) == schema


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("][", "not JSON"),
        ("[]", "not an object"),
        ('{"type": 5}', "5 is not valid"),
        ('{"properties": 7}', "properties is not"),
        ('{"properties": {"x": true}}', "properties is not"),
        ('{"$defs": 7}', "$defs is not"),
        ('{"properties": {"x": {"pattern": "("}}}', "regex"),
        ('{"$ref": "#/$defs/none"}', "does not exist"),
        ('{"a":' * 65 + "1" + "}" * 65, "deeper than 64"),
        ('{"description": "' + "x" * 300_000 + '"}', "the limit is 262144"),
        ('{"$ref": "file:///etc/hosts"}', "outside itself"),
    ],
)
def test_any_other_is_refused_with_the_reason(text: str, says: str) -> None:
    with pytest.raises(SchemaUnusable, match=says.replace("$", r"\$")):
        read_schema(text)


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """A web server with schemas, and the paths that it was asked for."""
    asked: list[str] = []

    class Schemas(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Schemas) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/schema", asked
        server.shutdown()
        thread.join()


def test_a_reference_to_a_url_is_not_followed(elsewhere: tuple[str, list[str]]) -> None:
    url, asked = elsewhere
    with pytest.raises(SchemaUnusable, match="outside itself"):
        read_schema(json.dumps({"properties": {"x": {"$ref": url}}}))
    assert asked == []
