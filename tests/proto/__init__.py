"""Tests of the protos themselves."""
