"""Formats without I/O: events to bytes for each front door, JSON to protobuf and back. Nothing here awaits."""
