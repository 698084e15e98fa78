"""The three real programs, started as users start them; killed, starved and fed bad input."""
