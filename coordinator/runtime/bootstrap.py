"""Secrets of an installation: made at the first start, kept in files that only the owner reads."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from pathlib import Path

KEY_PREFIX = "sgk_"
OWN_TENANT = "local"  # of the installation itself; its admins are those of all tenants


def new_key() -> str:
    """A new API key: the prefix and 43 random characters."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def derived_key(secret: str, key_id: str, salt: str) -> str:
    """An API key of the same form that who has the installation's secret and the salt can make again."""
    made = hmac.digest(secret.encode(), f"api-key:{key_id}:{salt}".encode(), "sha256")
    return KEY_PREFIX + base64.urlsafe_b64encode(made).decode().rstrip("=")


def digest_of(key: str) -> str:
    """SHA-256 of a key, in lower-case hexadecimal; all that is ever stored of it."""
    return hashlib.sha256(key.encode()).hexdigest()


def read_or_make(path: Path, make: str) -> str:
    """The secret in a file; where there is none, `make` is written (mode 0600, durable) and answered.

    Raises:
        SystemExit: the file cannot be read or written, or is empty.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        text = path.read_text().strip()
        if not text:
            raise SystemExit(f"{path} is empty; delete it to have a new one made") from None
        return text
    except OSError as error:
        raise SystemExit(f"cannot write {path}: {error.strerror}") from error
    with os.fdopen(descriptor, "w") as file:
        file.write(make + "\n")
        file.flush()
        os.fsync(file.fileno())
    return make
