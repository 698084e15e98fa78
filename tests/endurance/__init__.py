"""Runs at the real scale of time, which are too long for the test suite."""
