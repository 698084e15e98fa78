"""How the services reach what users name: which addresses, by whose word, with which token.

Everything here is hostile until checked. The coordinator checks data by it, agents fetch data by it; it
is light, and knows nothing of either.
"""

from __future__ import annotations


class Unreachable(Exception):
    """A source cannot be read; the text is for its caller and names nothing that it did not name."""


class Closed(Unreachable):
    """It may not, or cannot, be read from here at all, however often it is tried."""
