"""SQLite files: what the embedded store and the embedded streams have in common.

Theory of operation. A file has one process (a lock on a side file), one writing thread and a few
reading threads, each with a connection of its own; the event loop hands them work and gets futures.
Every step of a statement gives the interpreter lock away and must win it back from a busy event loop,
so what runs often uses few, wide statements: many rows in one INSERT, many bodies in one answer.
"""
