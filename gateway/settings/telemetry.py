"""`[log]` and `[tracing]`: what an operator hears."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.settings.section import Section


class LogSettings(Section):
    """`[log]`."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"
    # Which runs get a line when they end: all, or those that failed or ran out of time.
    runs: Literal["errors", "all"] = "errors"
    # A line on each request: never its query string.
    access: bool = False


class TracingSettings(Section):
    """`[tracing]`: a span for each run (extra `otel`); what is not said here, the standard OTEL_… variables say."""

    # `auto`: where there is an endpoint, here or in OTEL_EXPORTER_OTLP_ENDPOINT or …_TRACES_ENDPOINT.
    exporter: Literal["auto", "otlp", "none"] = "auto"
    # Where spans go, over OTLP/HTTP: a whole URL, such as http://localhost:4318/v1/traces.
    endpoint: Annotated[str, Field(pattern=r"^https?://.")] | None = None
    sample_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    service_name: str | None = None
