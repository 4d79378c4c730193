"""The tool of the case `tool`: it does nothing but yield."""

from collections.abc import Iterator

from gateway import BaseAdapter, tool


class CountingAdapter(BaseAdapter):
    """One tool."""

    @tool(description="Count", supports_streaming=True)
    def count(self, n: int) -> Iterator[dict[str, int]]:
        """Yield `{"i": i}` n times."""
        for i in range(n):
            yield {"i": i}
