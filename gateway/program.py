"""The gateway that the settings of `python -m gateway` ask for, put together from its parts."""

from __future__ import annotations

from gateway.app import Gateway, create_app
from gateway.copies import Copies
from gateway.endpoint import Limits
from gateway.exchange import Exchange
from gateway.rates import Limiter, LocalWindow, Rates, Window
from gateway.settings import GatewaySettings
from gateway.upstream import Upstream


def assemble(settings: GatewaySettings) -> Gateway:
    """Makes the application.

    Raises:
        OSError: a file that a setting names cannot be read.
        ValueError: a setting cannot be used.
    """
    upstream = Upstream(
        settings.coordinator,
        secret=settings.secret(),
        timeout_s=settings.timeout_s,
        tls=settings.tls,
    )
    return create_app(
        upstream,
        prefix=settings.prefix,
        tokens=settings.tokens(),
        limiter=_limiter(settings),
        exchange=_exchange(settings),
        copies=Copies(settings.cache_path) if settings.cache_path is not None else None,
        limits=Limits(
            body_bytes=settings.max_body_bytes,
            heartbeat_s=settings.heartbeat_s,
            send_timeout_s=settings.send_timeout_s,
            streams=settings.max_streams,
            user_streams=settings.max_user_streams,
        ),
        access_log=settings.access_log,
    )


def _exchange(settings: GatewaySettings) -> Exchange | None:
    if not settings.exchange_url:
        return None
    client_id, client_secret = settings.exchange_client_id, settings.exchange_secret()
    if not client_id or not client_secret:
        raise ValueError("exchange_url needs exchange_client_id and exchange_client_secret_file")
    return Exchange(settings.exchange_url, client_id=client_id, client_secret=client_secret)


def _limiter(settings: GatewaySettings) -> Limiter | None:
    if not settings.rate_limits:
        return None
    window: Window = LocalWindow()
    if settings.rate_store:
        # Only those who share counters need the client of the store.
        from gateway.rates_redis import RedisWindow

        window = RedisWindow(settings.rate_store)
    rates = Rates(settings.rate_key, settings.rate_user, settings.rate_tenant)
    return Limiter(window, rates)
