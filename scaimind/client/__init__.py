"""Typed clients of the coordinator: `Client`, `AsyncClient`, and the errors that they raise.

>>> with Client() as client:                                    # doctest: +SKIP
...     job_id = client.submit(yaml.safe_load(open("job.yaml"))).job_id
...     for event in client.logs(job_id):
...         print(event.log.message)
"""

from scaimind.channel import Tls
from scaimind.client.aio import AsyncClient
from scaimind.client.connection import default_data_dir
from scaimind.client.errors import (
    Aborted,
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    FieldError,
    Internal,
    InvalidArgument,
    MindError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from scaimind.client.sync import Client

__all__ = [
    "Aborted",
    "AlreadyExists",
    "AsyncClient",
    "Client",
    "DeadlineExceeded",
    "FailedPrecondition",
    "FieldError",
    "Internal",
    "InvalidArgument",
    "MindError",
    "NotFound",
    "PermissionDenied",
    "ResourceExhausted",
    "Tls",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "default_data_dir",
]
