"""Runs: executions of tools, their readers and their policies. The front doors talk to the hub, the hub to the pools."""
