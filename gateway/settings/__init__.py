"""What an operator can set: command line > environment (`GATEWAY_…`, `__` between levels) > `.env` > TOML file > defaults.

A file a table, or two; root.py has them all, reading.py reads them. Used by app.py, configured.py and cli/serve.py; every other module is
handed the values it needs. A key that nobody knows is an error that names the nearest known one. Source: docs of the protocol, section 7.
"""

from __future__ import annotations

from gateway.settings.auth import Algorithm, AuthSettings
from gateway.settings.host import HostSettings
from gateway.settings.pools import PoolSettings, WorkerTlsSettings
from gateway.settings.public import check_exposure, is_public, is_public_address
from gateway.settings.reading import load
from gateway.settings.root import Settings
from gateway.settings.runs import CallerLimitSettings, LimitSettings, RunLogSettings, SessionSettings
from gateway.settings.section import Section, SettingsError
from gateway.settings.server import ServerSettings
from gateway.settings.services import ServiceSettings
from gateway.settings.telemetry import LogSettings, TracingSettings

__all__ = [
    "Algorithm",
    "AuthSettings",
    "CallerLimitSettings",
    "HostSettings",
    "LimitSettings",
    "LogSettings",
    "PoolSettings",
    "RunLogSettings",
    "Section",
    "ServerSettings",
    "ServiceSettings",
    "SessionSettings",
    "Settings",
    "SettingsError",
    "TracingSettings",
    "WorkerTlsSettings",
    "check_exposure",
    "is_public",
    "is_public_address",
    "load",
]
