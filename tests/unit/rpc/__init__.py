"""The border and the servicers of the coordinator, without sockets."""
