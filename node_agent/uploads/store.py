"""Opens a store of objects through fsspec, with the identity that the node's environment gives.

Variables and files are those of the libraries (`AWS_…`, `GOOGLE_APPLICATION_CREDENTIALS`); none of them is
read, written down or shown here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from node_agent.uploads.orders import Failed
from scaimind.service.reach import stores

WAIT_S = 60
_T = TypeVar("_T")


def open_store(uri: str) -> tuple[Any, str]:
    """The file system of a URI, and the path in it. Failed where its library is missing."""
    scheme = uri.partition("://")[0]
    try:
        store = stores.open_store(scheme, "", wait_s=WAIT_S, attempts=3, listings_kept=False)
    except ImportError:
        text = f"{scheme}:// needs the extra `{scheme}` where the agent runs"
        raise Failed(text, lasting=True) from None
    return store, str(store._strip_protocol(uri)).rstrip("/")


def asked(function: Callable[..., _T], *arguments: Any, **options: Any) -> _T:
    """What a store answers; the many errors of the libraries become one. Raises Failed.

    Their texts are not passed on: these may hold addresses and signatures.
    """
    try:
        return function(*arguments, **options)
    except Failed:
        raise
    except FileNotFoundError:
        raise Failed("there is no such bucket or object", lasting=True) from None
    except PermissionError:
        raise Failed("the store refuses this node", lasting=True) from None
    except Exception as error:
        name = type(error).__name__
        raise Failed(f"the store does not answer as it should ({name})") from None
