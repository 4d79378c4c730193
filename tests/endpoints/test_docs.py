"""The page of the API's documentation: from this server alone, in nobody's frame, and no script but its own."""

from __future__ import annotations

import re

import pytest

from tests.conftest import Running


async def test_the_page_is_closed_to_others(running: Running) -> None:
    answer = await running.client.get("/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


async def test_all_that_the_page_loads_is_here(running: Running) -> None:
    html = (await running.client.get("/docs")).text
    loaded = re.findall(r'(?:src|href)="([^"]+)"', html)
    assert [url for url in loaded if url != "data:,"] == ["docs/swagger-ui.css", "docs/swagger-ui.js", "docs/start.js"]
    for url in loaded[1:]:
        answer = await running.client.get(f"/{url}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/css" if url.endswith(".css") else "text/javascript")
        assert len(answer.content) > 100
    assert "<script>" not in html
    assert "style=" not in html


@pytest.mark.parametrize("path", ["/docs", "/v1/tools", "/v1/tools/count/stream", "/livez", "/metrics", "/openapi.json", "/nowhere"])
async def test_nothing_is_taken_for_what_it_is_not(running: Running, path: str) -> None:
    running.pool.script = lambda call: call.end()
    assert (await running.client.get(path)).headers["x-content-type-options"] == "nosniff"


async def test_there_is_no_other_page(running: Running) -> None:
    assert (await running.client.get("/redoc")).status_code == 404
