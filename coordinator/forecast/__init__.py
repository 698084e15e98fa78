"""A process of its own that looks ahead: it follows the live records and runs the core on copies.

The copy is the process itself, forked: nothing is copied that is not touched, and what a question does
to the state is gone with its answer. It has no threads and knows no gRPC, so forking it is safe.
"""
