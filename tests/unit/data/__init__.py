"""Checks of data, each in this process."""
