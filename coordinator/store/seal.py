"""Documents, closed and opened: AES-256-GCM with a random nonce each.

The job's id is authenticated with its document, so none can stand in for another.
"""

from __future__ import annotations

import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from coordinator.store.protocol import StoreLost
from coordinator.store.sealed import MARK

NONCE_BYTES = 12


class Seal:
    """Closes and opens documents with one secret."""

    def __init__(self, secret: str) -> None:
        self._cipher = AESGCM(hashlib.sha256(b"documents:" + secret.encode()).digest())

    def close(self, job_id: str, body: bytes) -> bytes:
        """The body, sealed."""
        nonce = os.urandom(NONCE_BYTES)
        return MARK + nonce + self._cipher.encrypt(nonce, body, job_id.encode())

    def open(self, job_id: str, kept: bytes) -> bytes:
        """The body of what was kept, sealed or not.

        Raises:
            StoreLost: it was sealed with another key, or is not as it was.
        """
        if not kept.startswith(MARK):
            return kept
        nonce, sealed = kept[len(MARK) :][:NONCE_BYTES], kept[len(MARK) + NONCE_BYTES :]
        try:
            return self._cipher.decrypt(nonce, sealed, job_id.encode())
        except (InvalidTag, ValueError):
            text = "what was submitted is sealed with another key than that of seal_key_file"
            raise StoreLost(text) from None
