"""The gateway: the coordinator over REST and SSE."""
