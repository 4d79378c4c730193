"""The console's and the client's files: what is served, with which headers, and what isn't."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from gateway.endpoints.console import STATIC
from tests.conftest import Running, Serve
from tests.endpoints.conftest import problem
from tests.endpoints.people import auth

TEXT = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".ts": "text/plain", ".svg": "image/svg+xml"}


def served_files() -> list[str]:
    return sorted(path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*") if path.suffix in TEXT)


async def test_every_file_is_served_with_its_type_and_nothing_sniffs_it(running: Running) -> None:
    assert {"client.js", "client.d.ts", "client/gateway.js", "console/index.html"} <= set(served_files())
    for name in served_files():
        response = await running.client.get(f"/{name}")
        assert response.status_code == 200, name
        assert response.content == (STATIC / name).read_bytes()
        assert response.headers["content-type"].startswith(TEXT[Path(name).suffix])
        assert response.headers["x-content-type-options"] == "nosniff"


async def test_page_and_client_are_had_without_a_key_where_one_is_wanted(serve: Serve) -> None:
    async with serve(auth=auth()) as running:
        problem(await running.client.get("/v1/tools"), 401, "unauthenticated")
        for name in ("console", *served_files()):
            assert (await running.client.get(f"/{name}")).status_code == 200, name


async def test_page_may_run_and_fetch_only_what_this_gateway_serves(running: Running) -> None:
    response = await running.client.get("/console")
    assert response.status_code == 200
    policy = dict(part.strip().split(" ", 1) for part in response.headers["content-security-policy"].split(";"))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self' data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert response.headers["referrer-policy"] == "no-referrer"


async def test_page_names_no_other_host() -> None:
    """It works without a network, and so do the modules that it loads."""
    page = (STATIC / "console" / "index.html").read_text()
    assert re.findall(r"(?:src|href)=\"(?:https?:)?//", page) == []
    for path in [*STATIC.glob("console/*.js"), *STATIC.glob("client/*.js")]:
        assert re.findall(r"^(?:import|export \{|\} from)[^\"'\n]*[\"'][^.]", path.read_text(), re.MULTILINE) == [], path


async def test_copy_that_is_current_is_not_sent_again(running: Running) -> None:
    first = await running.client.get("/client.js")
    assert first.headers["cache-control"] == "no-cache"
    etag = first.headers["etag"]
    for tags in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = await running.client.get("/client.js", headers={"If-None-Match": tags})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    changed = await running.client.get("/client.js", headers={"If-None-Match": '"other"'})
    assert (changed.status_code, changed.content) == (200, first.content)


@pytest.mark.parametrize(
    ("accepted", "compressed"),
    [("gzip", True), ("br, GZIP;q=0.5", True), ("gzip;q=0", False), ("gzip; q=0.00", False), ("br", False), ("", False)],
)
async def test_file_is_compressed_for_who_takes_that(running: Running, accepted: str, compressed: bool) -> None:
    response = await running.client.get("/client/run.js", headers={"Accept-Encoding": accepted})
    assert response.headers.get("content-encoding") == ("gzip" if compressed else None)
    assert response.content == (STATIC / "client" / "run.js").read_bytes()
    assert response.headers["vary"] == "Accept-Encoding"
    assert response.headers["etag"].endswith('-gzip"') == compressed


async def test_head_says_what_a_get_would(running: Running) -> None:
    get, head = await running.client.get("/console"), await running.client.head("/console")
    assert (head.status_code, head.content) == (200, b"")
    different = {name for name in get.headers if get.headers[name] != head.headers.get(name)} - {"date", "x-request-id"}
    assert different == set()


async def test_path_with_a_slash_leads_to_the_page(running: Running) -> None:
    response = await running.client.get("/console/")
    assert (response.status_code, response.headers["location"]) == (308, "../console")


@pytest.mark.parametrize("path", ["/console/nothing.js", "/client/", "/console/%2e%2e/%2e%2e/console.py", "/client/..%2f..%2fconsole.py"])
async def test_what_is_no_file_of_the_folder_is_not_served(running: Running, path: str) -> None:
    problem(await running.client.get(path), 404, "route-not-found")


def test_wheel_holds_the_files(tmp_path: Path) -> None:
    root = STATIC.parents[2]
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    folder = STATIC.relative_to(root).as_posix()
    assert {f"{folder}/{name}" for name in served_files()} - names == set()
    assert f"{folder}/console/vendor/preact/LICENSE" in names
