"""What the patterns of the protos ask for, in words: a caller is told these, not the pattern."""

from __future__ import annotations

from typing import Any

PATTERN = "string.pattern"  # protovalidate's name of the rule

_JOB_ORDER = (
    "must be created_at, updated_at, name, priority or status, and perhaps asc or desc after it"
)

WORDS = {
    "^((created_at|updated_at|name|priority|status)( (asc|desc))?)?$": _JOB_ORDER,
    "^(leased|starting|productive|checkpointing|redone|idle|paused)?$": (
        "must be one of leased, starting, productive, checkpointing, redone, idle, paused"
    ),
    "^[^=]{1,128}=.{0,256}$": (
        "must be key=value, of at most 128 and 256 characters, without a line break"
    ),
    "^[^=]*$": "must be without =",
    "^[^\\x00-\\x1f\\x7f]*$": "must be without control characters",
    "^[A-Za-z0-9][A-Za-z0-9._-]*$": (
        "must be of letters, digits, dots, underscores and dashes, the first a letter or a digit"
    ),
    "^[A-Za-z0-9._@:-]*$": "must be of letters, digits and . _ @ : -",
    "^[A-Z][A-Z0-9_]*$": "must be of capitals, digits and underscores, the first a capital",
    "^[0-9a-f]{64}$": "must be 64 hexadecimal digits, in small letters",
}


def told(violation: Any) -> str:
    """What a violation that protovalidate has found says."""
    message = str(violation.proto.message)
    if violation.proto.rule_id != PATTERN:
        return message
    return WORDS.get(violation.rule_value, message)
