"""The walls of the house, as tests."""
