"""The OpenAPI document, and requests that schemathesis makes from it: each is answered as the document says.

Valid and invalid requests for every operation, the demo tools' included. Not asserted: that everything which the schemas allow is
accepted, since a number may be over a limit of the settings.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode, Response
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import positive_data_acceptance, response_schema_conformance

from tests.e2e.harness import DEMO_ADAPTER, Served, served

# No tool of the demo ends within these by itself, whatever it is asked for.
SETTINGS = f"""
[server]
timeout_s = 0.1
timeout_limit_s = 0.2
wait_limit_s = 0

[[pools]]
name = "default"
adapter = "{DEMO_ADAPTER}"
size = 2
"""
EXAMPLES = 2
SSE = "text/event-stream"
# Of a tool that takes too long, one that isn't of the kind that was asked for, a pool with too many callers.
EXPECTED_FAILURES = {501, 503, 504}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("openapi"), settings=SETTINGS) as gateway:
        yield gateway


def check(case: Case, gateway: Served, accept: str) -> None:
    """Send a request and compare its answer with the document."""
    answer: Response = case.call(base_url=gateway.url, headers={"Accept": accept}, timeout=10)
    excluded: list[Any] = [positive_data_acceptance]
    if answer.status_code in EXPECTED_FAILURES:
        excluded.append(not_a_server_error)
    if answer.headers.get("content-type", [""])[0].startswith(SSE):
        # It would hold each event against the schema of the whole text.
        excluded.append(response_schema_conformance)
    case.validate_response(answer, excluded_checks=excluded)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["valid", "invalid"])
def test_every_operation_answers_as_the_document_says(gateway: Served, mode: GenerationMode) -> None:
    document = schemathesis.openapi.from_dict(gateway.client.get("/openapi.json").json())
    asked = set[str]()
    for result in document.get_all_operations():
        operation = result.ok()

        @given(case=operation.as_strategy(generation_mode=mode), accept=st.sampled_from([*media_types(operation.definition.raw), "*/*"]))
        @settings(
            max_examples=EXAMPLES,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def holds(case: Case, accept: str) -> None:
            asked.add(case.operation.label)
            check(case, gateway, accept)

        # There is nothing wrong that one could say to an operation without parameters.
        with suppress(Unsatisfiable):
            holds()
    assert len(asked) > 30, asked


def media_types(operation: dict[str, Any]) -> list[str]:
    """Return what an operation's good answer may be written in."""
    return [*operation["responses"].get("200", {}).get("content", {})]
