"""Any gRPC service: which methods it has, what their messages look like, and at which paths they are served.

discovery.py asks a server (reflection) and descriptors.py reads a file; either way a `Directory` (directory.py) of `Method`s
(method.py) comes of it, each with the codecs (codec/protojson) and the JSON Schemas (schema.py) of its messages. httprules.py reads
google.api.http annotations, templates.py and routes.py find the method for a path, binding.py makes the request's message of a path,
a query and a body. Knows neither HTTP servers nor runs.
"""
