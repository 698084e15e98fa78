"""`python -m gateway`: serves the coordinator over REST and SSE until SIGINT or SIGTERM."""

from __future__ import annotations

import sys

import structlog

from gateway.program import assemble
from gateway.server import listen, server
from gateway.settings import GatewaySettings
from scaimind.service.log import configure
from scaimind.service.settings import split_address


def main() -> int:
    """Runs the program; 0 after a signal, 1 where it cannot start."""
    settings = GatewaySettings.load("gateway")
    configure(level=settings.log_level, json=settings.log_json)
    log = structlog.get_logger("gateway")
    host, port = split_address(settings.http)
    try:
        gateway = assemble(settings)
        sock = listen(host, port, send_timeout_s=settings.send_timeout_s)
    except (OSError, ValueError) as error:
        log.error("gateway_cannot_start", http=settings.http, error=str(error))
        return 1
    address = "{}:{}".format(*sock.getsockname()[:2])
    log.info("gateway_started", http=address, coordinator=settings.coordinator)
    server(gateway, shutdown_s=settings.shutdown_s).run(sockets=[sock])
    log.info("gateway_stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
