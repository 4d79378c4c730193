"""Write the pages of docs/reference that are made of the code: settings.md and problems.md (`make docs`).

A test fails when they aren't current. The settings' words are the comments in gateway/settings, so that they stand once.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from gateway import settings
from gateway.errors import CODES, PROBLEMS, GatewayError

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"
MADE = "<!-- Made by `make docs`; edit {source} instead. -->\n\n"

SETTINGS_HEAD = """# Settings

Command line > environment > `.env` > `gateway.toml` (`--config`) > defaults. In the environment a setting is `GATEWAY_`, its table and its
name with two underscores between: `GATEWAY_SERVER__PORT=8080`. A key that nobody knows is an error that names the nearest known one.

These are all settings, with their defaults; what has none is commented out.
"""
PROBLEMS_HEAD = """# Problems

Everything that can go wrong is a problem document (RFC 9457, `application/problem+json`): an answer of its own while no event was sent,
then `error` in the `end` event, or an `error` frame of a WebSocket. `type` is the path `/problems/` and the type's name, where the gateway
says what it means; `title` is always the same, `detail` says what was wrong this time and what is allowed. `retryable`: whether the same
request may succeed later; where the gateway knows when, there is `Retry-After`. `errors` lists wrong fields.

```json
{
  "type": "/problems/invalid-arguments",
  "title": "The arguments do not fit the tool's schema",
  "status": 422,
  "detail": "train_model does not take these arguments: see errors for /epochs",
  "instance": "/v1/tools/train_model/stream",
  "code": "INVALID_ARGUMENT",
  "retryable": false,
  "errors": [{ "field": "/epochs", "detail": "\\"many\\" is not of type \\"integer\\"" }],
  "request_id": "830ae662569b-27"
}
```

## Types

| type | HTTP | gRPC code | retryable | title |
|---|---:|---|---|---|
"""
CODES_HEAD = """
## A tool's own status

An exception in a tool is `tool-error`, with the gRPC code that the worker gave it: `ValueError` is INVALID_ARGUMENT, for example;
`ToolError` says its own. `error_type` is the exception's class, `details` what `ToolError` carries. Codes become these:

| gRPC code | HTTP | WebSocket close | retryable |
|---|---:|---:|---|
"""


def main() -> None:
    """Write both pages."""
    for name, text in pages().items():
        (FOLDER / name).write_text(text)


def pages() -> dict[str, str]:
    """Return the pages by their file names."""
    return {"settings.md": settings_page(), "problems.md": problems_page()}


def problems_page() -> str:
    """Return the table of problem types, and that of codes."""
    rows = [GatewayError(slug, "") for slug in PROBLEMS]
    types = "".join(
        f"| `{row.problem}` | {row.http_status} | {row.code.name} | {'yes' if row.retryable else 'no'} | {row.title} |\n" for row in rows
    )
    codes = "".join(
        f"| {code.name} | {row.http_status} | {row.ws_close} | {'yes' if row.retryable else 'no'} |\n" for code, row in CODES.items()
    )
    return MADE.format(source="gateway/errors.py") + PROBLEMS_HEAD + types + CODES_HEAD + codes


def settings_page() -> str:
    """Return every table of the settings as a block of TOML with the comments of its class."""
    parts = [MADE.format(source="gateway/settings"), SETTINGS_HEAD]
    top = []
    for name, field in settings.Settings.model_fields.items():
        model = _model(field)
        if model is None:
            top += [*_comments(settings.Settings)[name], _line(name, field)]
            continue
        many = name in ("pools", "services")
        parts.append(_section(f"[[{name}]]" if many else f"[{name}]", model))
    return "".join(parts[:2]) + f"\n## Without a table\n\n```toml\n{_joined(top)}```\n" + "".join(parts[2:])


def _section(title: str, model: type[BaseModel]) -> str:
    comments = _comments(model)
    lines: list[str] = [title]
    said = f"{text}\n\n" if (text := _said(model)) else ""
    inner = ""
    for name, field in model.model_fields.items():
        lines += [*comments[name], _line(name, field)]
        for nested in _models(field.annotation):
            inner += f"\nA table `{name}` has:\n\n" + _bare(nested)
    return f"\n## {title}\n\n{said}```toml\n{_joined(lines)}```\n{inner}"


def _bare(model: type[BaseModel]) -> str:
    """Return a table inside another one as a list: as TOML it would stand for itself."""
    comments = _comments(model)
    rows = ""
    for name, field in model.model_fields.items():
        said = " ".join(line.removeprefix("# ") for line in comments[name])
        rule = _rule(field)
        rows += f"- `{name}`{f' ({rule})' if rule else ''}{f': {said}' if said else ''}\n"
    return rows


def _line(name: str, field: FieldInfo) -> str:
    """Return `name = default`, and behind it what is allowed."""
    default = _default(field)
    rule = _rule(field)
    if field.is_required():
        return 'address = "127.0.0.1:50052"'
    if name == "adapter":
        # A pool has to have one, or addresses.
        return 'adapter = "my_tools:MyTools"'
    text = f"# {name} =" if default is None else f"{name} = {_toml(default)}"
    # A list by default names all that may be in it.
    return f"{text:<36} # {rule}" if rule and not isinstance(default, tuple) else text


def _default(field: FieldInfo) -> Any:
    if field.default_factory is not None:
        return field.get_default(call_default_factory=True, validated_data={})
    return None if field.default is PydanticUndefined else field.default


def _toml(value: Any) -> str:
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, BaseModel | dict):
        return "{}"
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def _rule(field: FieldInfo) -> str:
    """Return which values are allowed, in a few words."""
    allowed = _choices(field.annotation)
    if allowed:
        return " · ".join(allowed)
    low = high = ""
    for entry in [*field.metadata, *_metadata(field.annotation)]:
        for bound in [entry, *getattr(entry, "metadata", [])]:
            if isinstance(bound, Ge | Gt):
                low = f"{bound.ge:,}" if isinstance(bound, Ge) else f"more than {bound.gt:,}"
            if isinstance(bound, Le | Lt):
                high = f"{bound.le:,}" if isinstance(bound, Le) else f"less than {bound.lt:,}"
    return f"{low} to {high}" if low and high else f"from {low}" if low else f"up to {high}" if high else ""


def _metadata(annotation: Any) -> list[Any]:
    found = list(getattr(annotation, "__metadata__", ()))
    for part in get_args(annotation):
        found += _metadata(part)
    return found


def _choices(annotation: Any) -> list[str]:
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [str(member.value) for member in annotation]
    parts = get_args(annotation)
    if parts and all(isinstance(part, str) for part in parts):
        return list(parts)
    return next((found for part in parts if part is not type(None) and (found := _choices(part))), [])


def _model(field: FieldInfo) -> type[BaseModel] | None:
    return next(_models(field.annotation), None)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _comments(model: type[BaseModel]) -> dict[str, list[str]]:
    """Return the comment lines ahead of each field of a class, its bases' fields first."""
    comments: dict[str, list[str]] = {}
    for base in reversed([base for base in model.__mro__ if issubclass(base, BaseModel) and base.__module__.startswith(settings.__name__)]):
        lines = inspect.getsource(base).splitlines()
        for node in ast.parse("\n".join(lines)).body[0].body:  # type: ignore[attr-defined]
            if isinstance(node, ast.AnnAssign):
                first = node.lineno - 2
                while lines[first].lstrip().startswith("#"):
                    first -= 1
                comments[node.target.id] = [line.strip() for line in lines[first + 1 : node.lineno - 1]]  # type: ignore[union-attr]
    return {name: comments.get(name, []) for name in model.model_fields}


def _said(model: type[BaseModel]) -> str:
    """Return a class's docstring without the name of its table."""
    text = re.sub(r"\s+", " ", inspect.getdoc(model) or "")
    said = re.sub(r"^(One )?`\[+\w+\]+`[:.,]? ?", "", text)
    return said[:1].upper() + said[1:]


def _joined(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    main()
