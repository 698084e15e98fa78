"""Nodes that are cut off, in networks of their own."""
