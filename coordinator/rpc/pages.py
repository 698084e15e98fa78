"""Page tokens: opaque, signed, and bound to the question that they belong to.

The key is the store's, so that a token is good at whichever coordinator leads.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

from coordinator.core.reasons import Reason
from coordinator.runtime.refusal import Refusal

SIGNATURE_BYTES = 12


class PageTokens:
    """Makes and reads tokens with a secret of the store."""

    def __init__(self, secret: bytes) -> None:
        self._secret = hashlib.sha256(b"page-token:" + secret).digest()

    def make(self, key: tuple[str | int, str] | None, *, question: str) -> str:
        """The token of the page after `key`; "" after the last page."""
        if key is None:
            return ""
        body = json.dumps(list(key), ensure_ascii=False).encode()
        return _text(self._sign(body, question) + body)

    def read(self, token: str, *, question: str) -> tuple[str | int, str] | None:
        """The key in a token; None for the first page.

        Raises:
            Refusal: INVALID_ARGUMENT, the token is not ours or belongs to another question.
        """
        if not token:
            return None
        try:
            raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            if _text(raw) != token:  # decoding passes over what is no base64
                raise ValueError("spelling")
            signature, body = raw[:SIGNATURE_BYTES], raw[SIGNATURE_BYTES:]
            if not hmac.compare_digest(signature, self._sign(body, question)):
                raise ValueError("signature")
            value, job_id = _pair(json.loads(body))
        except ValueError as error:
            text = "is not a token of this list with these filters"
            raise Refusal(
                Reason.INVALID_ARGUMENT, f"page_token {text}", violations=(("page_token", text),)
            ) from error
        return value, job_id

    def _sign(self, body: bytes, question: str) -> bytes:
        signed = question.encode() + b"\0" + body
        return hmac.new(self._secret, signed, hashlib.sha256).digest()[:SIGNATURE_BYTES]


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _pair(parsed: Any) -> tuple[str | int, str]:
    if (
        not isinstance(parsed, list)
        or len(parsed) != 2
        or not isinstance(parsed[0], str | int)
        or not isinstance(parsed[1], str)
    ):
        raise ValueError("shape")
    return parsed[0], parsed[1]
