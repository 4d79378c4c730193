"""Host tools: Python functions in the gateway's own process that a worker's code calls (`call_elixir_tool`).

marking.py has the decorator, loading.py finds the functions that the settings name, toolbox.py runs them within bounds, answering.py is
what the answer to a call looks like on the wire. Who serves them: the gRPC front door, the host of Snakepit's workers, and
listener.py for the gateway's own.
"""
