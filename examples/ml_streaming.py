"""The demo adapter: progress, numbers, training, a dataset, failures, endless streams and plain calls.

    python -m gateway.runtime --adapter examples/ml_streaming.py --port 50061

It imports from `snakepit_bridge`, as tools written for Snakepit do; the worker provides those names where the
real package isn't installed. `from gateway import BaseAdapter, StreamChunk, tool` is the same.
"""

import asyncio
import time
from typing import Literal

from snakepit_bridge.adapters.showcase.tool import StreamChunk
from snakepit_bridge.base_adapter import BaseAdapter, tool


class MLStreamingAdapter(BaseAdapter):
    """Tools that show what a streaming tool can look like."""

    @tool(description="Stream progress", supports_streaming=True)
    def stream_progress(self, steps: int = 10):
        """Stream progress.

        Args:
            steps: How many steps to report.
        """
        for i in range(steps):
            yield {"step": i + 1, "total": steps, "progress": (i + 1) / steps * 100}

    @tool(description="Stream numbers", supports_streaming=True)
    def stream_numbers(self, count: int = 10):
        """Stream numbers.

        Args:
            count: How many numbers.
        """
        for i in range(count):
            yield {"number": i, "is_last": i == count - 1}

    @tool(description="Stream items with metadata; the tool marks the last one itself", supports_streaming=True)
    def stream_items(self, count: int = 5):
        """Stream items.

        Args:
            count: How many items.
        """
        for i in range(count):
            yield StreamChunk(
                data={"index": i + 1, "value": f"Item {i + 1}"},
                is_final=(i == count - 1),
                metadata={"position": i + 1},
            )

    @tool(description="Process items one after another", supports_streaming=True)
    def process_items(self, items: list):
        """Process items.

        Args:
            items: Anything; each comes back with its position.
        """
        for index, item in enumerate(items):
            yield {"index": index, "item": item, "remaining": len(items) - index - 1}

    @tool(description="Train a model, reporting loss and accuracy", supports_streaming=True)
    def train_model(self, epochs: int = 10):
        """Train a model.

        Args:
            epochs: How many epochs, at least one.
        """
        for epoch in range(epochs):
            loss = 1.0 / (epoch + 1)
            accuracy = min(0.95, 0.5 + epoch * 0.05)
            yield {"type": "progress", "epoch": epoch + 1, "loss": loss, "accuracy": accuracy}

        yield {"type": "complete", "final_loss": loss, "final_accuracy": accuracy}

    @tool(description="Train with streaming progress", supports_streaming=True)
    def train_with_progress(self, epochs: int = 10):
        """Train with progress, half a second an epoch.

        Args:
            epochs: How many epochs.
        """
        loss, accuracy = 1.0, 0.5
        for epoch in range(epochs):
            time.sleep(0.5)
            loss *= 0.8
            accuracy = min(0.99, accuracy + 0.05)
            yield StreamChunk(
                data={"epoch": epoch + 1, "loss": round(loss, 4), "accuracy": round(accuracy, 4)},
                is_final=False,
            )
        yield StreamChunk(
            data={"status": "complete", "model_id": f"model_{int(time.time())}"},
            is_final=True,
        )

    @tool(description="Generate a dataset of random rows, in parts (needs numpy)", supports_streaming=True)
    def generate_dataset(self, rows: int = 10000, chunk_size: int = 1000):
        """Generate a dataset.

        Args:
            rows: How many rows of ten columns.
            chunk_size: How many rows in one chunk.
        """
        import numpy as np

        total_sent = 0
        while total_sent < rows:
            batch = min(chunk_size, rows - total_sent)
            data = np.random.randn(batch, 10)
            total_sent += batch
            yield StreamChunk(
                data={"rows": batch, "total": total_sent, "data": data.tolist()},
                is_final=(total_sent >= rows),
            )

    @tool(description="Fail, before or after the first chunks", supports_streaming=True)
    def may_fail(self, fail: bool = True, after: int = 2, error: Literal["value", "missing", "denied", "timeout", "other"] = "other"):
        """May fail.

        Args:
            fail: False lets it end well.
            after: How many chunks come first; 0 fails before the first.
            error: What kind of exception.
        """
        for i in range(after):
            yield {"step": i + 1}
        if fail:
            kinds = {"value": ValueError, "missing": FileNotFoundError, "denied": PermissionError, "timeout": TimeoutError}
            raise kinds.get(error, RuntimeError)(f"failed after {after} chunks, as asked")

    @tool(description="Count for ever, until cancelled", supports_streaming=True)
    def infinite_stream(self, interval_ms: float = 100):
        """Infinite stream.

        Args:
            interval_ms: Milliseconds between two numbers.
        """
        number = 0
        while not self.cancelled:
            yield {"number": number}
            number += 1
            time.sleep(interval_ms / 1000)

    @tool(description="Count for ever on the event loop, until cancelled", supports_streaming=True)
    async def infinite_tokens(self, interval_ms: float = 100):
        """Infinite tokens.

        Args:
            interval_ms: Milliseconds between two tokens.
        """
        number = 0
        while True:
            yield {"token": f"token-{number}"}
            number += 1
            await asyncio.sleep(interval_ms / 1000)

    @tool(description="Stream a text word by word, as a language model does", supports_streaming=True)
    async def stream_tokens(self, text: str = "The quick brown fox jumps over the lazy dog", delay_ms: float = 50):
        """Stream tokens.

        Args:
            text: What to say.
            delay_ms: Milliseconds before each word.
        """
        words = text.split(" ")
        for index, word in enumerate(words):
            await asyncio.sleep(delay_ms / 1000)
            yield word if index == 0 else f" {word}"

    @tool(description="Add two numbers")
    def add(self, a: float, b: float) -> float:
        """Add.

        Args:
            a: The first number.
            b: The second number.
        """
        return a + b

    @tool(description="Count a text's characters, words and lines")
    async def describe_text(self, text: str) -> dict:
        """Describe a text.

        Args:
            text: Any text.
        """
        return {"characters": len(text), "words": len(text.split()), "lines": text.count("\n") + 1}
