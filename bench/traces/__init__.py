"""Replays recorded workloads through the real core, in virtual time."""
