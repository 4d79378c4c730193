"""The gRPC front door: Snakepit's BridgeService for clients outside, over the same hub as the HTTP front door."""
