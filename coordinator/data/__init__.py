"""Checks data sources for callers: can each be reached and parsed, and how much is in it.

What callers name is hostile until checked: a check runs in a short-lived process of its own (`python -m
coordinator.data`), bounded in time, memory and bytes, which may read only what the rules allow. This room
knows nothing of jobs, and imports nothing of the coordinator's other rooms.
"""
