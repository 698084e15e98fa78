"""Keeps the inside inside: finds text that must not reach a caller.

What refuses a call is withheld whole where it carries a traceback, SQL, a file path, an address or a
credential; cutting pieces out of it would leave riddles. What a record says (why a job failed) has the
record around it, and only loses such words. No pattern may take more than linear time: the text may be
a user's. Everything else passes untouched, names that users chose included
(`H100`, `meta-llama/Llama-3.1-8B`, `s3://bucket/train.jsonl`, `pytorch:24.05-py3`).
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address

MAX_TEXT = 4096
MASK = "[…]"
WITHHELD = "Not shown here: it carries a path, an address or the text of a program."
_WORD = re.compile(r"\S+")
_SUFFIX = r"(?:py|pyc|so|db|sqlite3?|db-wal|sock|key|pem|crt|log|toml|ini|conf|env|sh)"

_TRACEBACK = re.compile(
    r"""Traceback\ \(most\ recent   # Python's own header
      | \bFile\ "[^"]*",\ line\ \d
      | \bline\ \d+,\ in\ \w
      | (?<=\w)\.\w*(?:Error|Exception)\b      # a dotted exception class
      | ^[ \t]*(?:at|in)\ [\w.$<>]+\(.*:\d+\)  # frames of other languages
      | \b(?:KeyError|IndexError|AttributeError|TypeError|AssertionError|RuntimeError
          |OperationalError|IntegrityError|DatabaseError|ProgrammingError)\b
      | \bpanicked\ at\b | \bgoroutine\ \d+\b
    """,
    re.VERBOSE | re.MULTILINE,
)
_SQL = re.compile(
    r"""\bSELECT\b.{1,400}?\bFROM\b
      | (?i:\bselect\s+(?:\*|[\w."`]+(?:\s*,\s*[\w."`]+)*)\s+from\s+["`\w.]+
            \s+(?:where|order|group|limit|join|inner|left)\b)
      | (?i:\bselect\s+\*\s+from\b)
      | (?i:\binsert\s+(?:or\s+\w+\s+)?into\s+["`\w.]+\s*(?:\(|values\b))
      | (?i:\bupdate\s+["`\w.]+\s+set\s+["`\w.]+\s*=)
      | (?i:\bdelete\s+from\s+["`\w.]+\s+where\b) | \bDELETE\ FROM\b
      | (?i:\b(?:create|drop|alter|truncate)\s+(?:unique\s+)?(?:table|index|database)\s+["`\w])
      | (?i:\bno\s+such\s+(?:table|column)\b | \bdatabase\ is\ locked\b | \bsyntax\ error\b
          | \b(?:UNIQUE|FOREIGN\ KEY|NOT\ NULL|CHECK|PRIMARY\ KEY)\ constraint\ failed\b)
      | \bPRAGMA\s+\w+ | \bBEGIN\ IMMEDIATE\b
    """,
    re.VERBOSE | re.DOTALL,
)
_PATH = re.compile(
    rf"""(?<![\w/:.*{{}}-])/[\w.@+~-]+/[\w.@+~/-]*     # absolute, two parts at least
      | (?<![\w/:.-])/(?:tmp|etc|var|usr|home|root|opt|srv|proc|dev|mnt|run|data|app)\b
      | (?<!\w)~[\w-]*/[\w.-] | \bfile:/+
      | (?<![\w:/.-])(?:\.{{0,2}}/)?(?:[\w.-]+/)+[\w.-]+\.{_SUFFIX}\b
      | (?<!\w)[A-Za-z]:\\ | \\\\[\w.-]+\\
      | [\w-]\.py:\d
    """,
    re.VERBOSE,
)
_ADDRESS = re.compile(
    r"""\b(?:ipv4|ipv6|unix|dns|tcp|udp|vsock):[^\s]
      | \b(?:redis|rediss|postgres|postgresql|mysql|amqp|grpc|grpcs|sqlite)://
      | (?i:\blocalhost\b)
      | [\w-]\.(?:local|internal|lan|localdomain|svc)\b(?!/)
      | (?<![\w./-])[A-Za-z][A-Za-z0-9-]*(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}:\d{1,5}\b(?!\.\d)
      | //[A-Za-z0-9.-]+:\d{1,5}\b
      | \b0x[0-9a-fA-F]{6,16}\b
    """,
    re.VERBOSE,
)
_CREDENTIAL = re.compile(
    r"""\bsgk_[\w-]{8,} | \beyJ[\w-]{8,}\.[\w-]+\.[\w-]* | (?i:\bbearer\s+[\w.~+/-]{16,})
      | -----BEGIN\ [A-Z ]+-----
    """,
    re.VERBOSE,
)
_KINDS = (_TRACEBACK, _SQL, _PATH, _ADDRESS, _CREDENTIAL)
_HOST_PORT = re.compile(r"(?<![\w./-])[A-Za-z][A-Za-z0-9-]*:(\d{4,5})\b(?![\w.-])")
_IP = re.compile(r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-fA-F:]*::?[0-9a-fA-F:.]*)(?![\w])")


def leaks(text: str) -> bool:
    """Whether a text carries a traceback, SQL, a file path, an address or a credential.

    Text beyond 4,096 characters is not read and counts as carrying one.
    """
    if len(text) > MAX_TEXT:
        return True
    if any(kind.search(text) for kind in _KINDS):
        return True
    return any(1024 <= int(found[1]) <= 65535 for found in _HOST_PORT.finditer(text)) or any(
        _is_ip(found[0]) for found in _IP.finditer(text)
    )


@lru_cache(maxsize=1024)
def cleaned(text: str) -> str:
    """The text of a record without the words that leak; all of it is withheld where that is not enough."""
    if not leaks(text):
        return text
    if len(text) <= MAX_TEXT:
        kept = _WORD.sub(lambda word: MASK if leaks(word[0]) else word[0], text)
        if not leaks(kept):
            return kept
    return WITHHELD


def _is_ip(text: str) -> bool:
    try:
        return bool(ip_address(text.rstrip(".:")))
    except ValueError:
        return False
