"""What the composition root makes of settings that need a package more, or variables that are everybody's."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.app import Gateway
from gateway.settings import SettingsError, TracingSettings, load

ENDPOINT = "http://localhost:4318/v1/traces"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)


async def is_traced(**tracing: Any) -> bool:
    gateway = Gateway(load(None, {"tracing": tracing}))
    if gateway.tracing is None:
        return False
    await gateway.tracing.aclose()
    return True


async def test_runs_are_traced_only_where_somebody_wants_that(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not await is_traced()
    assert await is_traced(exporter="otlp")
    assert await is_traced(endpoint=ENDPOINT)
    assert not await is_traced(endpoint=ENDPOINT, exporter="none")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318")
    assert await is_traced()
    assert not await is_traced(exporter="none")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert not await is_traced(exporter="otlp")


async def test_without_the_extra_a_wish_for_traces_is_an_error_and_a_variable_only_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gateway.telemetry.tracing", None)
    with pytest.raises(SettingsError, match=r"tracing: .*pip install 'snakepit-gateway\[otel\]'"):
        await is_traced(endpoint=ENDPOINT)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318")
    with capture_logs() as logs:
        assert not await is_traced()
    assert [(line["event"], line["log_level"]) for line in logs] == [("runs are not traced", "warning")]


@pytest.mark.parametrize("wrong", [{"endpoint": "localhost:4318"}, {"sample_ratio": 1.5}, {"exporter": "jaeger"}, {"sampel_ratio": 1}])
def test_wrong_settings_name_what_is_wrong(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"tracing.{next(iter(wrong))}"):
        load(None, {"tracing": wrong})
    assert TracingSettings().exporter == "auto"
