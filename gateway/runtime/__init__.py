"""The worker process: runs a user's adapter and streams what its tools yield over gRPC.

`python -m gateway.runtime --adapter module:Class` starts it; workers/ does so for local pools. It needs no
web framework. A call goes servicer.py -> executor.py -> execution.py -> the tool, and each chunk comes back
through payload.py and buffer.py to the servicer.

Users write against four names: adapter.BaseAdapter, tool.tool, chunk.StreamChunk and failure.ToolError.
"""
