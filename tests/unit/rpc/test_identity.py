"""Who calls: keys, gateways, agents, and those who are none of them."""

from __future__ import annotations

import pytest

from coordinator.core.decision import Changed
from coordinator.core.reasons import Reason
from coordinator.core.records import Key, node_key_id
from coordinator.rpc.identity import Authenticator, Identity
from coordinator.runtime.bootstrap import digest_of
from coordinator.runtime.clock import Clock
from coordinator.runtime.view import View
from scaimind.v1 import options_pb2
from tests.unit.rpc.requests import NOW_MS, a_key, refusal_of

SECRET, JOIN = "gateway-secret", "join-token"


class StoppedClock(Clock):
    """Shows one time."""

    def now_ms(self) -> int:
        return NOW_MS


def authenticator(*keys: Key) -> Authenticator:
    view = View()
    view.apply([Changed(record=key, cause=Reason.KEY_CHANGED, actor="", at_ms=1) for key in keys])
    return Authenticator(view, StoppedClock(), api_secret=SECRET, join_token=JOIN)


def bearer(token: str) -> list[tuple[str, str | bytes]]:
    return [("authorization", f"Bearer {token}")]


def test_a_key_names_its_tenant_user_and_permissions() -> None:
    key = a_key(digest_of("sgk_a"), permissions=("CLUSTER_ADMIN", "VIEW"))
    identity = authenticator(key).identify(bearer("sgk_a"))
    assert identity == Identity(
        "acme",
        "ann",
        frozenset({"scaimind:cluster_admin", "scaimind:view"}),
        key_id=key.key_id,
    )


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_is_read_in_any_case(scheme: str) -> None:
    who = authenticator(a_key(digest_of("sgk_a")))
    assert who.identify([("authorization", f"{scheme} sgk_a")]).tenant_id == "acme"


BAD_KEYS = {
    "unknown": a_key(digest_of("sgk_b")),
    "revoked": a_key(digest_of("sgk_a"), revoked_at_ms=NOW_MS - 1),
    "expired": a_key(digest_of("sgk_a"), expires_at_ms=NOW_MS),
}


@pytest.mark.parametrize("name", BAD_KEYS)
def test_a_key_that_is_not_valid_is_refused_alike(name: str) -> None:
    who = authenticator(BAD_KEYS[name])
    refusal = refusal_of(lambda: who.identify(bearer("sgk_a")), Reason.AUTH_TOKEN_INVALID)
    assert refusal.message == "the credential is unknown or not valid"


def test_a_key_is_valid_until_the_moment_it_expires() -> None:
    who = authenticator(a_key(digest_of("sgk_a"), expires_at_ms=NOW_MS + 1))
    assert who.identify(bearer("sgk_a")).user_id == "ann"


def test_a_revoked_key_is_refused_from_the_moment_that_it_is_published() -> None:
    view = View()
    who = Authenticator(view, StoppedClock(), api_secret=SECRET, join_token=JOIN)
    for revoked_at_ms in (0, NOW_MS):
        key = a_key(digest_of("sgk_a"), revoked_at_ms=revoked_at_ms)
        view.apply([Changed(record=key, cause=Reason.KEY_CHANGED, actor="", at_ms=1)])
        if not revoked_at_ms:
            who.identify(bearer("sgk_a"))
    refusal_of(lambda: who.identify(bearer("sgk_a")), Reason.AUTH_TOKEN_INVALID)


@pytest.mark.parametrize(
    "metadata",
    [[], [("authorization", "")], [("authorization", "sgk_a")], [("authorization-bin", b"x")]],
)
def test_no_credential_is_told_apart_from_a_wrong_one(
    metadata: list[tuple[str, str | bytes]],
) -> None:
    refusal_of(lambda: authenticator().identify(metadata), Reason.AUTH_TOKEN_MISSING)


@pytest.mark.parametrize("value", ["Basic YTpi", "Bearer  ", "Bearer x", "Bearer ä", "Bearer a b"])
def test_what_is_no_key_is_refused(value: str) -> None:
    who = authenticator()
    refusal_of(lambda: who.identify([("authorization", value)]), Reason.AUTH_TOKEN_INVALID)


def test_the_join_token_makes_one_who_joins_and_nothing_else() -> None:
    identity = authenticator().identify(bearer(JOIN))
    assert identity == Identity("", "joiner", frozenset(), program=options_pb2.JOINER)


def node_key(node_id: str, secret: str) -> Key:
    """The record of a node's credential."""
    return Key(
        key_id=node_key_id(node_id),
        sha256=digest_of(secret),
        tenant_id="",
        user_id="",
        permissions=(),
        created_at_ms=1,
        node_id=node_id,
    )


@pytest.mark.parametrize("node_id", ["n1", "rack.1.n1"])
def test_an_agent_is_its_node(node_id: str) -> None:
    secret = f"nk_{node_id}.{'s' * 43}"
    identity = authenticator(node_key(node_id, secret)).identify(bearer(secret))
    assert (identity.program, identity.node_id) == (options_pb2.AGENT, node_id)
    assert (identity.tenant_id, identity.permissions) == ("", frozenset())


@pytest.mark.parametrize(
    "token", ["nk_n1.wrong", "nk_n2.secret", "nk_n1", "nk_", "nk_.secret", "nk_n1.secret.x"]
)
def test_what_is_no_nodes_credential_is_refused(token: str) -> None:
    who = authenticator(node_key("n1", "nk_n1.secret"))
    refusal_of(lambda: who.identify(bearer(token)), Reason.AUTH_TOKEN_INVALID)


def test_a_nodes_credential_is_no_api_key_whatever_its_digest() -> None:
    mine = a_key(digest_of("sgk_a"))
    who = authenticator(mine, node_key("n1", "sgk_a"), node_key("n2", "nk_n2.secret"))
    assert who.identify(bearer("sgk_a")).tenant_id == "acme"
    digest = digest_of("nk_n2.secret")
    refusal_of(lambda: who.resolve(digest), Reason.AUTH_TOKEN_INVALID)


def gateway(secret: str = SECRET, **fields: str) -> list[tuple[str, str | bytes]]:
    names = {name.replace("_", "-"): value for name, value in fields.items()}
    return [("x-api-secret", secret), *names.items()]


def test_a_gateway_speaks_for_the_caller_that_it_names() -> None:
    metadata = gateway(x_tenant_id="t", x_user_id="u", x_permissions="scaimind:view, scaimind:nope")
    identity = authenticator().identify(metadata)
    assert identity == Identity("t", "u", frozenset({"scaimind:view"}))


def test_a_gateway_that_names_nobody_speaks_for_itself() -> None:
    identity = authenticator().identify(gateway(x_permissions="scaimind:view"))
    assert identity == Identity("", "gateway", frozenset(), program=options_pb2.GATEWAY)


def test_a_wrong_secret_is_refused_even_beside_a_good_key() -> None:
    who = authenticator(a_key(digest_of("sgk_a")))
    metadata = [*gateway("wrong", x_tenant_id="t"), *bearer("sgk_a")]
    refusal_of(lambda: who.identify(metadata), Reason.AUTH_TOKEN_INVALID)


def test_who_claims_a_tenant_without_the_secret_gets_the_tenant_of_the_key() -> None:
    who = authenticator(a_key(digest_of("sgk_a")))
    metadata = [*bearer("sgk_a"), ("x-tenant-id", "other"), ("x-permissions", "scaimind:manage")]
    identity = who.identify(metadata)
    assert (identity.tenant_id, identity.permissions) == ("acme", frozenset({"scaimind:view"}))
