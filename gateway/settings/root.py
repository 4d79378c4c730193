"""All settings together, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import model_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from gateway.settings.auth import AuthSettings
from gateway.settings.host import HostSettings
from gateway.settings.pools import PoolSettings
from gateway.settings.runs import LimitSettings, RunLogSettings, SessionSettings
from gateway.settings.server import ServerSettings
from gateway.settings.services import ServiceSettings
from gateway.settings.telemetry import LogSettings, TracingSettings

ENV_PREFIX = "GATEWAY_"


class Settings(BaseSettings):
    """All settings. Without a pool and a service the demo tools of examples/ml_streaming.py are served."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        env_file=".env",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    server: ServerSettings = ServerSettings()
    auth: AuthSettings = AuthSettings()
    sessions: SessionSettings = SessionSettings()
    runlog: RunLogSettings = RunLogSettings()
    limits: LimitSettings = LimitSettings()
    log: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()
    host: HostSettings = HostSettings()
    pools: tuple[PoolSettings, ...] = ()
    # Functions that workers' tools may call (`call_elixir_tool`): `module:function`, `file.py:function`, or a module or a file alone for
    # its functions that are marked with `@host_tool`.
    host_tools: tuple[str, ...] = ()
    services: tuple[ServiceSettings, ...] = ()
    # How calls reach the workers.
    transport: Literal["lane", "grpcio"] = "lane"

    @model_validator(mode="after")
    def _names_differ(self) -> Settings:
        names = [pool.name for pool in self.pools] + [service.pool for service in self.services]
        doubled = {name for name in names if names.count(name) > 1}
        if doubled:
            kinds = "pools or services" if self.services else "pools"
            raise ValueError(f"two {kinds} are named {', '.join(sorted(doubled))}")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the TOML file below the environment, and leave other programs' variables in `.env` to them."""
        if isinstance(dotenv_settings, DotEnvSettingsSource):
            dotenv_settings.env_vars = _ours(dotenv_settings.env_vars)
        toml = TomlConfigSettingsSource(settings_cls, cls.model_config.get("toml_file"))
        return init_settings, env_settings, dotenv_settings, file_secret_settings, toml


def _ours(variables: Mapping[str, str | None]) -> Mapping[str, str | None]:
    return {name: value for name, value in variables.items() if name.upper().startswith(ENV_PREFIX)}
