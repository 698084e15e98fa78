"""The pure part of the coordinator: no I/O, no clock, no randomness, no ids of its own making.

Commands and the time go in, a Decision comes out; only `apply(event)` changes the state, live and in
recovery alike. Times are integer milliseconds since 1970 UTC.
"""
