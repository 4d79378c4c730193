"""Tools of a local worker that call host tools."""

import asyncio

from gateway import BaseAdapter, tool


class HostCaller(BaseAdapter):
    __thread_safe__ = True

    @tool(description="Call a host tool and return what it returns")
    def ask(self, name: str, arguments: dict | None = None):
        return self.session_context.call_elixir_tool(name, **(arguments or {}))

    @tool(description="Call a host tool for each number", supports_streaming=True)
    async def ask_often(self, count: int):
        for number in range(count):
            yield await asyncio.to_thread(self.session_context.call_elixir_tool, "double", number=number)

    @tool(description="List the host tools")
    def listed(self):
        return sorted(self.session_context.elixir_tools)
