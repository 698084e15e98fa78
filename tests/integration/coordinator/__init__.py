"""The coordinator over real gRPC, SQLite and streams, with agents that speak their API by hand."""
