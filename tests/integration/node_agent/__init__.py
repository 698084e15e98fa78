"""The agent against a real gRPC server and real processes."""
