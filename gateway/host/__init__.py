"""The host that a Snakepit worker expects to find: the gateway in the place of Snakepit's Elixir side.

A real Snakepit worker calls its host before it serves and while it does: it registers its tools there, says that it lives, and asks for the
host's own tools. listener.py is one gRPC listener for all pools of kind `snakepit`; workers/snakepit.py opens a session with it
for each worker and reads what was registered. It is the mirror image of runtime/host.py.
"""
