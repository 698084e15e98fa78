"""Trainings over several nodes, each with a network and an address of its own."""
