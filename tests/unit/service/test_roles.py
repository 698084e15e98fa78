"""What claims say about their bearer."""

from __future__ import annotations

from typing import Any

import pytest

from scaimind.service.roles import PERMISSIONS, Claims, role_table

VIEW = "scaimind:view"
ALL = frozenset({VIEW, "scaimind:manage", "scaimind:cluster_admin", "scaimind:evaluate"})


def granted(claims: dict[str, Any], **how: Any) -> frozenset[str]:
    named = {"tenant_id": "acme", "sub": "ann"}
    return Claims(**how).bearer(named | claims, ends_at=1.0).permissions


def test_all_permissions_are_those_of_the_protos() -> None:
    assert PERMISSIONS == ALL


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        ("super_admin", ALL),
        ("partner_admin", ALL),
        ("tenant_admin", ALL),
        ("tenant_user", frozenset()),
        ("tenant_viewer", {VIEW}),
        ("unheard_of", frozenset()),
        ("SUPER_ADMIN", frozenset()),
    ],
)
def test_usual_roles(role: str, expected: frozenset[str]) -> None:
    assert granted({"roles": [role]}) == granted({"roles": role}) == expected


def test_permissions_add_up_and_those_of_others_are_passed_over() -> None:
    claims = {"roles": ["tenant_viewer", "x"], "module_permissions": ["scaimind:evaluate", "y:z"]}
    assert granted(claims) == {VIEW, "scaimind:evaluate"}
    assert granted({"module_permissions": "scaimind:manage scaimind:*"}) == {"scaimind:manage"}
    assert granted({}) == frozenset()


def test_roles_and_claims_can_be_set() -> None:
    table = role_table({"engineer": [VIEW, "scaimind:manage"], "tenant_viewer": []})
    assert granted({"roles": "engineer"}, table=table) == {VIEW, "scaimind:manage"}
    assert granted({"roles": "tenant_viewer"}, table=table) == frozenset()
    assert granted({"groups": ["tenant_admin"]}, roles="groups") == ALL
    with pytest.raises(ValueError, match="scaimind:see"):
        role_table({"x": ["scaimind:see"]})


def test_a_token_that_was_got_by_exchange_is_told_apart() -> None:
    named = {"tenant_id": "acme", "sub": "ann"}
    assert not Claims().bearer(named, ends_at=1.0).exchanged
    assert Claims().bearer(named | {"act": {"sub": "mind"}}, ends_at=1.0).exchanged


@pytest.mark.parametrize("roles", [{"a": 1}, [1], [None], 7, True, ["x"] * 1001])
def test_odd_claims_are_refused(roles: Any) -> None:
    with pytest.raises(ValueError, match=r"permission|roles"):
        granted({"roles": roles})
