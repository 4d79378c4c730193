"""The class that users derive their adapters from.

A worker makes a new instance for each request: construct, set_session_context, initialize, the tool, cleanup.
A sync tool and its sync initialize and cleanup share one thread; async ones share the event loop's task.
Everything here works for subclasses that never call `super().__init__()`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

from gateway.runtime.session import SessionContext
from gateway.runtime.tool import ToolSpec, discover

Value = TypeVar("Value")


class _FromContext(Generic[Value]):
    """A property that a subclass may overwrite with an attribute of its own of the same name."""

    def __init__(self, read: Callable[[BaseAdapter], Value]) -> None:
        self._read = read
        self.__doc__ = read.__doc__

    @overload
    def __get__(self, instance: None, owner: type[BaseAdapter]) -> _FromContext[Value]: ...
    @overload
    def __get__(self, instance: BaseAdapter, owner: type[BaseAdapter]) -> Value: ...
    def __get__(self, instance: BaseAdapter | None, owner: type[BaseAdapter]) -> Value | _FromContext[Value]:
        return self if instance is None else self._read(instance)


class BaseAdapter:
    """A set of tools: methods marked with `@tool`.

    Set `__thread_safe__ = True` on a subclass whose sync tools may run at the same time in one process.
    """

    __thread_safe__ = False

    session_context: SessionContext | None = None

    def set_session_context(self, session_context: SessionContext) -> None:
        """Take the context of the request that this instance serves; called before initialize()."""
        self.session_context = session_context

    def initialize(self) -> Any:
        """Prepare for the request; override it as `def` or `async def`. An exception here fails the request."""

    def cleanup(self) -> Any:
        """Release what initialize() took; override it as `def` or `async def`.

        Called exactly once for each instance that was constructed, when the tool's generator is closed, after
        errors and cancellations too.
        """

    @_FromContext
    def session_id(self) -> str:
        """The caller's session; empty where it has none."""
        return self.session_context.session_id if self.session_context is not None else ""

    @_FromContext
    def cancelled(self) -> bool:
        """True as soon as nobody listens any more: a long loop should stop."""
        return self.session_context is not None and self.session_context.cancelled

    @_FromContext
    def deadline(self) -> float | None:
        """Seconds left until the caller's deadline; None without one."""
        return self.session_context.deadline if self.session_context is not None else None

    @_FromContext
    def trace_context(self) -> dict[str, str]:
        """What a call that the tool makes passes on to stay in the run's trace: `traceparent`, perhaps `tracestate`; empty without one."""
        return dict(self.session_context.origin.trace) if self.session_context is not None else {}

    def get_tools(self) -> list[ToolSpec]:
        """Return what this adapter offers."""
        return list(discover(type(self)).values())

    def call_tool(self, tool_name: str, **arguments: Any) -> Any:
        """Call one of the tools directly, as another method or a test may do; nothing is checked or converted."""
        return getattr(self, tool_name)(**arguments)
