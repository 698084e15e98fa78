"""Tests of the in-job library and its integrations."""
