"""Snakepit Gateway: Python functions that yield, as Server-Sent Events, WebSocket messages and JSON lines."""

__version__ = "0.1.0"
