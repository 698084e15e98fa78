"""Tests of single rooms: no sockets, no sleeps."""
