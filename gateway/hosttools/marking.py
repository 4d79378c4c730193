"""`@host_tool`: what a module says of the functions in it that are host tools. Imports nothing: a worker may import the module, too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, overload

Function = TypeVar("Function", bound=Callable[..., Any])

ATTRIBUTE = "_gateway_host_tool"


@dataclass(frozen=True, slots=True)
class Mark:
    """What `@host_tool` was given; empty: the function's own name, its docstring's summary."""

    name: str = ""
    description: str = ""


@overload
def host_tool(function: Function, /) -> Function: ...
@overload
def host_tool(*, name: str = "", description: str = "") -> Callable[[Function], Function]: ...
def host_tool(function: Any = None, /, *, name: str = "", description: str = "") -> Any:
    """Offer a function to workers, where the setting `host_tools` names its file or module.

    `@host_tool`, or `@host_tool(name="lookup", description="…")`. The function, `def` or `async def`, returns a JSON value.
    """

    def mark(function: Any) -> Any:
        setattr(function, ATTRIBUTE, Mark(name, description))
        return function

    return mark if function is None else mark(function)
