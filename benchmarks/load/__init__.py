"""The load generator: it opens streams, counts the ends of events, and reads timestamps where a case wants latency.

counting.py counts, reader.py with http.py and websocket.py are clients for one connection each, drain.py and blast.py measure
the ceilings: of the upstream without a gateway, and of this generator without one.
"""
