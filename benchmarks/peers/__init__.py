"""The peers that install from the package index: a gateway as everybody writes it, and Envoy's transcoder."""
