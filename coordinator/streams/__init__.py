"""Job logs and metrics: append, tail, follow by cursor, retention."""
