"""``customers``: read, change and remove customers, by the stack's own functions."""

from __future__ import annotations

import json
import sys
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from stripe_integrations.actions import StripeCustomer, User
from stripe_integrations_cli.api import call
from stripe_integrations_cli.errors import CommandError, ExitCode, UsageError
from stripe_integrations_cli.fields import parsed_fields
from stripe_integrations_cli.output import timestamp
from stripe_integrations_cli.session import Session, Yes, command

customers = typer.Typer(no_args_is_help=True, help="Customers, and what is stored with them.")

COLUMNS = ("user", "customer", "created")

UserArgument = Annotated[str, typer.Argument(metavar="USER", help="The user's id.")]
FieldsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="FIELD=VALUE",
        help="name=Jenny, address.city=Ghent, metadata.plan=pro; as JSON: balance:=0, phone:=null.",
    ),
]
FileOption = Annotated[
    str | None,
    typer.Option("--file", metavar="PATH", help="A JSON object with fields; - is standard input."),
]
DeleteOnStripe = Annotated[
    bool,
    typer.Option("--delete-on-stripe", help="Delete it on Stripe too, with its subscriptions."),
]


@command(customers, "list")
def list_customers(
    session: Session,
    *,
    state: Annotated[
        str | None,
        typer.Option(help="One of active, unassigned and incomplete; by default, active."),
    ] = None,
    email: Annotated[
        str | None,
        typer.Option("--email", help="Those with this e-mail on Stripe, except deleted ones."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 50,
) -> None:
    """List customers: those of users, those of no user, or those whose creation is incomplete.

    The incomplete ones are looked for in the whole table; the others by an index. E-mails are in no
    index: with --email, Stripe is asked with the stack's key.
    """
    if email is not None and state is not None:
        raise UsageError("give --state or --email, not both")
    with session.stack.in_process():
        if email is None:
            found = StripeCustomer.find(state or "active")
        else:
            found = StripeCustomer.find_by_email(email)
        shown = (
            {"user": each.user_id, "customer": each.stripe_id, "created": timestamp(each.created)}
            for each in found
        )
        session.output.limited(COLUMNS, shown, limit)


@command(customers, "get")
def get(session: Session, user: UserArgument) -> None:
    """Show the customer of a user."""
    _show(session, call(session.stack, "GetCustomer", "GET /customers", user_id=user))


@command(customers, "create")
def create(
    session: Session,
    user: UserArgument,
    fields: FieldsArgument = None,
    *,
    email: Annotated[str | None, typer.Option("--email", help="The billing e-mail.")] = None,
    file: FileOption = None,
    allow_existing: Annotated[
        bool,
        typer.Option("--allow-existing", help="Even if Stripe has one with this e-mail."),
    ] = False,
) -> None:
    """Create the customer of a user, or show the existing one."""
    body = {"user_id": user, **parsed_fields(fields, file)}
    if email is not None:
        body["billing_email"] = email
    if allow_existing:
        body["allow_existing"] = True
    _show(session, call(session.stack, "CreateCustomer", "POST /customers", body=body))


@command(customers, "update")
def update(
    session: Session,
    user: UserArgument,
    fields: FieldsArgument = None,
    *,
    file: FileOption = None,
) -> None:
    """Update a customer, on Stripe too; null clears a field."""
    body = parsed_fields(fields, file)
    if not body:
        raise UsageError("give the fields to change, as NAME=TEXT, NAME:=JSON or --file")
    function, route = "UpdateCustomer", "PATCH /customers"
    _show(session, call(session.stack, function, route, user_id=user, body=body))


@command(customers, "adopt")
def adopt(
    session: Session,
    user: UserArgument,
    customer: Annotated[str, typer.Argument(metavar="CUS", help="The Stripe customer, cus_….")],
    *,
    take_over: Annotated[
        bool,
        typer.Option("--take-over", help="Even if its metadata names another owner."),
    ] = False,
) -> None:
    """Make a customer that exists on Stripe the user's."""
    body = {"stripe_id": customer, **({"take_over": True} if take_over else {})}
    function, route = "AdoptCustomer", "PUT /customers"
    _show(session, call(session.stack, function, route, user_id=user, body=body))


@command(customers, "sync")
def sync(session: Session, user: UserArgument) -> None:
    """Update a customer, and what is stored with it, from Stripe."""
    _show(session, call(session.stack, "SyncCustomer", "POST /customers/sync", user_id=user))


@command(customers, "release")
def release(session: Session, user: UserArgument, *, is_confirmed: Yes = False) -> None:
    """Undo an adoption: the customer belongs to no user. It remains on Stripe.

    It runs in this process: your credentials need the permissions of the function adopt_customer.
    """
    session.confirm(
        f"Delete the record of the customer of {user}? It remains on Stripe.",
        is_confirmed=is_confirmed,
    )
    with session.stack.in_process():
        StripeCustomer.release(User(user))
    session.output.fields({"released": user})


@command(customers, "delete")
def delete(session: Session, user: UserArgument, *, is_confirmed: Yes = False) -> None:
    """Soft-delete a customer: its record never changes again. It remains on Stripe."""
    session.confirm(f"Soft-delete the customer of {user}?", is_confirmed=is_confirmed)
    call(session.stack, "SoftDeleteCustomer", "DELETE /customers", user_id=user)
    session.output.fields({"deleted": user})


@command(customers, "erase")
def erase(
    session: Session,
    user: Annotated[str | None, typer.Argument(metavar="USER", help="The user's id.")] = None,
    *,
    customer: Annotated[
        str | None,
        typer.Option("--customer", metavar="CUS", help="A Stripe customer, in place of a user."),
    ] = None,
    delete_on_stripe: DeleteOnStripe = False,
    is_confirmed: Yes = False,
) -> None:
    """Remove all that is stored about a user, or a Stripe customer, for good.

    It exits with 1 if Stripe has refused to delete one: that one is erased here alone.
    """
    if (user is None) is (customer is None):
        raise UsageError("give a user, or --customer")
    where = "here and on Stripe" if delete_on_stripe else "here"
    session.confirm(
        f"Erase {user or customer} {where}? It can't be undone.", is_confirmed=is_confirmed
    )
    target = {"stripe_id": customer} if user is None else {"user_id": user}
    result = session.stack.invoke(
        "EraseCustomer", {**target, **({"delete_on_stripe": True} if delete_on_stripe else {})}
    )
    rows = [
        {"customer": each, "on_stripe": "refused" if each in result["refused"] else "done"}
        for each in result["customer_ids"]
    ]
    session.output.rows(("customer", "on_stripe"), rows)
    if delete_on_stripe and result["refused"]:
        session.output.say("delete what Stripe has refused in its Dashboard")
        raise typer.Exit(ExitCode.FAILED)


@command(customers, "export")
def export(
    session: Session,
    user: UserArgument,
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="The file to write; by default, standard output."
        ),
    ] = None,
) -> None:
    """Write all that is stored about a user, as JSON lines, with the payloads of its events."""
    with session.stack.in_process():
        items = StripeCustomer.export(User(user))
        first = next(items, None)
        if first is None:
            raise CommandError("nothing is stored about this user")
        lines = (f"{json.dumps(item)}\n" for item in chain([first], items))
        if out is None:
            sys.stdout.writelines(lines)
            return
        out.touch(mode=0o600)
        out.chmod(0o600)  # one that was there may have been readable by others
        with out.open("w") as file:
            count = sum(bool(file.write(line)) for line in lines)
    session.output.fields({"file": str(out), "items": count})


def _show(session: Session, customer: dict[str, Any]) -> None:
    """Print a customer: in JSON as the API returns it, otherwise with the ids of its children."""
    if session.output.as_json:
        session.output.json(customer)
        return
    shown = {}
    for name, value in customer.items():
        is_list_of_objects = isinstance(value, list) and value and isinstance(value[0], dict)
        shown[name] = (
            ", ".join(each["stripe_id"] for each in value) if is_list_of_objects else value
        )
    session.output.fields(shown)
