"""Scenarios of the core as text, with the full trace that is expected of each."""
