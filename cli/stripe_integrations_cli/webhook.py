"""``webhook``: the endpoint at Stripe, as this release needs it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

from stripe_integrations.actions.events.event_types import applied_event_types
from stripe_integrations.config import API_VERSION, SIGNING_SECRET
from stripe_integrations_cli.errors import CommandError, ExitCode
from stripe_integrations_cli.secret_store import SecretStore, ask_for_secret
from stripe_integrations_cli.session import Session, Yes, command
from stripe_integrations_cli.stack import Stack
from stripe_integrations_cli.stripe_account import stripe_client

Json = dict[str, Any]

webhook = typer.Typer(no_args_is_help=True, help="The webhook endpoint at Stripe.")

COLUMNS = ("endpoint", "status", "api_version", "events", "problem")

EventOption = Annotated[
    list[str] | None,
    typer.Option("--event", help="One more type, for a custom handler; may be repeated."),
]
EndpointArgument = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Its id, we_….")]


@command(webhook, "create")
def create(session: Session, *, event: EventOption = None) -> None:
    """Register the stack's webhook at Stripe, and store its signing secret.

    If there is an endpoint of another API version, as before an upgrade, both are active then.
    """
    stack = session.stack
    client = stripe_client(stack)
    for existing in current(endpoints_of(stack, client)):
        raise CommandError(
            f"{existing.id} has this version already: stripe-customers webhook update"
        )
    session.output.fields(endpoint_row(stack, register(stack, client, event or ())))
    session.output.say(
        "functions that run already read the secret within five minutes: until then they refuse "
        "deliveries, and Stripe retries them"
    )


@command(webhook, "status")
def status(session: Session) -> None:
    """Compare what Stripe has with what this release needs; exits with 1 if they differ."""
    stack = session.stack
    client = stripe_client(stack)
    endpoints = endpoints_of(stack, client)
    rows = [endpoint_row(stack, each) for each in endpoints]
    session.output.rows(COLUMNS, rows)
    problems = [row["problem"] for row in rows if row["problem"]]
    needed = current(endpoints)
    if len(needed) > 1:
        problems.append("several endpoints")
        session.output.say(f"{several(needed)}: stripe-customers webhook delete")
    if not needed:
        problems.append("no endpoint")
        session.output.say(
            f"no endpoint of {_url(stack)} has the version {API_VERSION}: "
            "stripe-customers webhook create"
        )
    if not SecretStore(stack).signing_secrets():
        problems.append("no secret")
        session.output.say("no signing secret is stored: stripe-customers webhook roll")
    if problems:
        raise typer.Exit(ExitCode.FAILED)


@command(webhook, "update")
def update(
    session: Session,
    endpoint: Annotated[
        str | None,
        typer.Argument(metavar="ENDPOINT", help="By default, the one with the stack's URL."),
    ] = None,
    *,
    event: EventOption = None,
    is_confirmed: Yes = False,
) -> None:
    """Give the endpoint the types that this release needs, and the stack's URL; enable it.

    Its other types remain. Name the endpoint if the URL of the stack has changed: the command asks
    before it changes the URL of an endpoint.
    """
    stack = session.stack
    client, url = stripe_client(stack), _url(stack)
    if endpoint is None:
        found = current(endpoints_of(stack, client))
        if not found:
            raise CommandError("no endpoint has this version: stripe-customers webhook create")
    else:
        found = [client.v1.webhook_endpoints.retrieve(endpoint)]
    for each in found:
        if each.url != url:
            session.confirm(
                f"Send the events of {each.id} to {url}, and no longer to {each.url}?",
                is_confirmed=is_confirmed,
            )
        session.output.fields(endpoint_row(stack, enable(stack, client, each, event or ())))


@command(webhook, "roll")
def roll(
    session: Session,
    *,
    finish: Annotated[
        bool, typer.Option("--finish", help="The old secret has expired: forget it.")
    ] = False,
    is_confirmed: Yes = False,
) -> None:
    """Store the new signing secret, typed at a prompt, before the old one.

    First roll it in Stripe's Dashboard, and let the old one expire after 24 hours: Stripe signs
    with both until then. Afterwards forget the old one with --finish, which asks first.
    """
    store = SecretStore(session.stack)
    before = store.signing_secrets()
    if finish:
        if not before:
            raise CommandError("no signing secret is stored")
        if len(before) > 1:
            session.confirm(
                "Forget the old signing secret? What Stripe signs with it alone is refused then.",
                is_confirmed=is_confirmed,
            )
            store.write_signing_secrets(before[:1])
    else:
        secret = ask_for_secret("New signing secret")
        if not SIGNING_SECRET.fullmatch(secret):
            raise CommandError("this is not a signing secret: it has the form whsec_…")
        store.write_signing_secrets([secret, *(each for each in before if each != secret)])
    session.output.fields({"stored_secrets": len(store.signing_secrets())})


@command(webhook, "delete")
def delete(session: Session, endpoint: EndpointArgument, *, is_confirmed: Yes = False) -> None:
    """Delete an endpoint that another one has replaced, and forget its signing secret.

    An endpoint of another URL is not deleted, and neither is the one that this release needs while
    one of another version remains. If one remains, the newest stored secret is that of this one;
    of two that have the same version, no secret is forgotten.
    """
    stack = session.stack
    client = stripe_client(stack)
    endpoints = {each.id: each for each in endpoints_of(stack, client)}
    if endpoint not in endpoints:
        raise CommandError(f"the stack's URL has no endpoint {endpoint}")
    remaining = [each for each in endpoints.values() if each.id != endpoint]
    versions = {each.api_version for each in remaining}
    if remaining and endpoints[endpoint].api_version == API_VERSION not in versions:
        raise CommandError(f"{endpoint} is the one that this release needs")
    session.confirm(f"Delete {endpoint} at Stripe?", is_confirmed=is_confirmed)
    client.v1.webhook_endpoints.delete(endpoint)
    store = SecretStore(stack)
    secrets = store.signing_secrets()
    if len(remaining) == 1 and len(secrets) > 1 and endpoints[endpoint].api_version not in versions:
        secrets = secrets[:1]
        store.write_signing_secrets(secrets)
    session.output.fields({"deleted": endpoint, "stored_secrets": len(secrets)})


def needed_types(stack: Stack) -> set[str]:
    """Return the types of event that this stack applies or publishes.

    A family, such as ``invoice.*``, can't be enabled at Stripe, and is left out.
    """
    with stack.in_process():
        applied = set(applied_event_types())
    published = {each.strip() for each in stack.parameters["PublishTypes"].split(",")}
    return applied | {each for each in published if each and not each.endswith(".*")}


def register(stack: Stack, client: Any, further_types: Iterable[str]) -> Any:
    """Register an endpoint at Stripe, store its signing secret before others, and return it.

    Parameters
    ----------
    stack : Stack
        The stack whose webhook it calls.
    client : stripe.StripeClient
        The operator's client.
    further_types : iterable of str
        Types of event besides those that the stack needs.
    """
    store = SecretStore(stack)
    before = store.signing_secrets()
    endpoint = client.v1.webhook_endpoints.create(
        {
            "url": _url(stack),
            "api_version": API_VERSION,
            "enabled_events": _enabled({*needed_types(stack), *further_types}),
            "description": _without_secret(stack),
        }
    )
    try:
        store.write_signing_secrets([endpoint.secret, *before])
    except BaseException:
        # Only that response contains the secret.
        client.v1.webhook_endpoints.delete(endpoint.id)
        raise
    return client.v1.webhook_endpoints.update(endpoint.id, {"description": f"stack {stack.name}"})


def is_without_secret(stack: Stack, endpoint: Any) -> bool:
    """Return whether a registration was interrupted before the endpoint's secret was stored."""
    return bool(endpoint.description == _without_secret(stack))


def _without_secret(stack: Stack) -> str:
    """The description until the secret is stored: an interrupted call may leave the endpoint."""
    return f"stack {stack.name}: the signing secret is not stored yet"


def enable(stack: Stack, client: Any, endpoint: Any, further_types: Iterable[str]) -> Any:
    """Give an endpoint the stack's URL and the types that it lacks, enable it, and return it."""
    types = {*endpoint.enabled_events, *needed_types(stack), *further_types}
    return client.v1.webhook_endpoints.update(
        endpoint.id,
        {
            "url": _url(stack),
            "enabled_events": _enabled(types),
            "disabled": False,
        },
    )


def _enabled(types: set[str]) -> list[str]:
    """The types as Stripe takes them: the one for all of them excludes others."""
    return ["*"] if "*" in types else sorted(types)


def missing_types(stack: Stack, endpoint: Any, further_types: Iterable[str] = ()) -> set[str]:
    """Return the types that the stack needs, or that are wanted too, and the endpoint lacks."""
    enabled = set(endpoint.enabled_events)
    return set() if "*" in enabled else {*needed_types(stack), *further_types} - enabled


def current(endpoints: Iterable[Any]) -> list[Any]:
    """Return those endpoints that have the version that this release needs."""
    return [each for each in endpoints if each.api_version == API_VERSION]


def several(endpoints: Sequence[Any]) -> str:
    """Return what to do about more than one endpoint of this release."""
    ids = ", ".join(each.id for each in endpoints)
    return f"{len(endpoints)} endpoints of this version: delete all but one of {ids}"


def endpoints_of(stack: Stack, client: Any) -> list[Any]:
    """Return the endpoints at Stripe that have the stack's URL, the newest first."""
    url = _url(stack)
    listed = client.v1.webhook_endpoints.list({"limit": 100})
    return [each for each in listed.auto_paging_iter() if each.url == url]


def endpoint_row(stack: Stack, endpoint: Any) -> Json:
    """Return an endpoint as a row, with what is wrong with it."""
    missing = missing_types(stack, endpoint)
    problems = []
    if endpoint.status != "enabled":
        problems.append("is disabled: stripe-customers webhook update")
    if missing:
        problems.append(f"lacks {', '.join(sorted(missing))}: stripe-customers webhook update")
    if is_without_secret(stack, endpoint):
        problems.append("has a signing secret that is not stored: stripe-customers setup")
    if endpoint.api_version != API_VERSION:
        problems.append(f"has another version than {API_VERSION}: delete it after an upgrade")
    return {
        "endpoint": endpoint.id,
        "status": endpoint.status,
        "api_version": endpoint.api_version or "the account's",
        "events": len(endpoint.enabled_events),
        "problem": "; ".join(problems) or None,
    }


def _url(stack: Stack) -> str:
    url = stack.outputs.get("WebhookUrl")
    if url is None:
        raise CommandError("this stack has no webhook: see its parameter WebhookIngress")
    return url
