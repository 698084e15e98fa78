"""The verbs about API keys, for admins."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from scaimind.cli import moments, tables
from scaimind.cli.session import Session, verb


def add(app: typer.Typer) -> None:
    """Adds these verbs to the command line."""
    keys = typer.Typer(
        help="Makes, lists and revokes API keys.", no_args_is_help=True, rich_markup_mode=None
    )
    verb(keys, "scaimind keys create --tenant acme --permission view --permission manage")(create)
    verb(keys, "scaimind keys list --tenant acme", name="list")(list_keys)
    verb(keys, "scaimind keys revoke key_01J9")(revoke)
    app.add_typer(keys, name="keys")


def create(
    session: Session,
    tenant: Annotated[str, typer.Option(help="Whose key it is")],
    permission: Annotated[
        list[str], typer.Option(help="view, manage, cluster_admin or evaluate; may be repeated")
    ],
    user: Annotated[str, typer.Option(help="The user (default: the key itself)")] = "",
    expires_in: Annotated[str, typer.Option(help="Such as 12h or 30d (default: never)")] = "",
) -> None:
    """Makes a key and prints it, this once."""
    expires_at = (
        datetime.now(UTC) + moments.period(expires_in, option="--expires-in")
        if expires_in
        else None
    )
    answer = session.client.create_key(
        tenant, permissions=permission, user_id=user, expires_at=expires_at
    )
    session.show(answer, tables.new_key)


def list_keys(
    session: Session,
    tenant: Annotated[str, typer.Option(help="Only of this tenant")] = "",
    page_size: Annotated[int, typer.Option(min=1, max=100, help="Keys a page")] = 100,
    page_token: Annotated[str, typer.Option(help="Of the page before")] = "",
) -> None:
    """Lists keys, without their secrets."""
    page = session.client.keys_page(tenant, page_size=page_size, page_token=page_token)
    session.show(page, tables.keys)


def revoke(
    session: Session,
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="The key's id, key_…")],
) -> None:
    """Revokes a key at once."""
    session.show(session.client.revoke_key(key_id), tables.revoked)
