"""What a mover is told, and what it answers. URIs in it were judged before."""

from __future__ import annotations

import msgspec


class Upload(msgspec.Struct, frozen=True, tag="upload"):
    """Bring what `source` holds, as `manifest` (a file) lists it, to `target`; the manifest comes last.

    `journal` is a file in which is kept what has arrived, for whoever has to go on.
    """

    source: str
    target: str
    manifest: str
    journal: str


class Download(msgspec.Struct, frozen=True, tag="download"):
    """Bring what is at `source` to `target`, which is there whole or not at all.

    `digest` is `sha256:…` of its manifest; "": whatever manifest it has is believed, and none is needed.
    """

    source: str
    target: str
    digest: str = ""


class Remove(msgspec.Struct, frozen=True, tag="remove"):
    """Remove what was uploaded to `target`, its manifest first."""

    target: str


Order = Upload | Download | Remove


class Answer(msgspec.Struct, frozen=True):
    """How it ended; "" is well. `lasting`: trying again does not help."""

    fault: str = ""
    lasting: bool = False


class Failed(Exception):
    """It was not done. The text is for the user and names neither paths nor what a library said."""

    def __init__(self, text: str, *, lasting: bool = False) -> None:
        """`lasting`: trying again does not help."""
        super().__init__(text)
        self.lasting = lasting
