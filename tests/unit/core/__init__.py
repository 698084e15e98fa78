"""The core by itself: no sockets, no sleeps, no files."""
