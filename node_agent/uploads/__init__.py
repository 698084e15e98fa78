"""The uploads room: what a job's URIs ask for is brought to a store of objects, and back from there.

`mover` is the agent's end. Each transfer runs in a process of its own (`__main__`), which holds the store's
library and its threads: one that hangs is killed, and none keeps the agent from its calls.
"""
