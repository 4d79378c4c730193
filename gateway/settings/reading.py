"""Settings are read from a file and the environment; what is wrong in them is said for the operator, with the nearest known key."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

from dotenv import dotenv_values
from pydantic import BaseModel, ValidationError
from pydantic_settings import SettingsConfigDict
from pydantic_settings import SettingsError as ValueNotRead

from gateway.settings.root import ENV_PREFIX, Settings
from gateway.settings.section import Section, SettingsError

# Variables of that prefix which are no settings: the client commands' own.
OTHER_VARIABLES = frozenset({"GATEWAY_URL", "GATEWAY_KEY"})


def load(config: Path | None = None, overrides: dict[str, Any] | None = None) -> Settings:
    """Return the settings. `config` is a TOML file; `overrides` are those of the command line, by section.

    Raises:
        SettingsError: a key is unknown, a value is wrong, or the file can't be read.
    """
    if config is not None and not config.is_file():
        raise SettingsError(f"{config}: there is no such file")

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=config)

    try:
        _check_variables({*os.environ, *dotenv_values(".env")})
        return FromFile(**(overrides or {}))
    except ValidationError as exc:
        raise SettingsError("\n".join(_explain(error) for error in exc.errors())) from exc
    except ValueNotRead as exc:
        raise SettingsError(f"{exc}: {exc.__cause__}") from exc
    except (ValueError, OSError) as exc:
        raise SettingsError(f"{config}: {exc}") from exc


def _explain(error: Any) -> str:
    """Return one mistake as a line: where, what, and the nearest known key."""
    path = [str(part) for part in error["loc"]]
    where = ".".join(path)
    if error["type"] != "extra_forbidden":
        return f"{where}: {error['msg']}" if where else error["msg"]
    known = _known_keys(path[:-1])
    near = difflib.get_close_matches(path[-1], known, 1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
    return f"{where}: there is no such key; {hint}"


def _known_keys(path: Iterable[str]) -> list[str]:
    model: type[BaseModel] = Settings
    for part in path:
        # What is no key stands for a place in a list, or for a name of the operator's.
        if part in model.model_fields:
            model = section_of(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def tables() -> dict[str, type[Section]]:
    """Return the tables of the settings by their names."""
    found = {name: section_of(field.annotation) for name, field in Settings.model_fields.items()}
    return {name: table for name, table in found.items() if table is not None}


def section_of(annotation: Any) -> type[Section] | None:
    """Return the table that a field of this annotation holds, or holds several of; None: it is no table."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((found for part in get_args(annotation) if (found := section_of(part))), None)


def _check_variables(names: Iterable[str]) -> None:
    """Return if every variable that looks like ours is one: pydantic-settings itself passes over the names it doesn't know.

    Raises:
        SettingsError: a line for each that isn't.
    """
    known = [f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields]
    nested = [f"{ENV_PREFIX}{name.upper()}__{key.upper()}" for name, model in tables().items() for key in model.model_fields]
    lines = []
    for name in sorted(names):
        first = name.upper().partition("__")[0]
        if first.startswith(ENV_PREFIX) and first not in known and first not in OTHER_VARIABLES:
            without_section = [key for key in nested if key.endswith(f"__{name.upper().removeprefix(ENV_PREFIX)}")]
            near = without_section or difflib.get_close_matches(name.upper(), [*nested, *known], 1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            lines.append(f"{name}: there is no such variable; {hint}")
    if lines:
        raise SettingsError("\n".join(lines))
