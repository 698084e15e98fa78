"""The pure part of the agent: what it observes, what is desired, what to do about it."""
