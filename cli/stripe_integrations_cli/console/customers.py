"""The pages of customers: lists, one customer, and its events."""

from __future__ import annotations

from itertools import islice
from typing import Any

from flask import Blueprint, abort, redirect, render_template, request, url_for

from stripe_integrations.actions import StripeCustomer, StripeEvent, User
from stripe_integrations_cli.api import call
from stripe_integrations_cli.console.connection import stack
from stripe_integrations_cli.console.paging import ID, MAX_ID, PAGE_ROWS, Place, page_of, place_in

customers = Blueprint("customers", __name__)

_STATES = {"all": (True, False), "active": (True,), "unassigned": (False,)}
"""Whether their customers have a user."""


@customers.get("/customers")
def list_customers() -> str:
    """Show the customers in a state, newest first."""
    state = request.args.get("state", "all")
    if state not in _STATES:
        abort(404)
    before = place_in(request.args.get("before"))
    found = StripeCustomer.find(None, created_to=before.created if before else None)
    page = page_of(
        found,
        lambda each: Place(each.created, str(each.stripe_id)),
        before,
        is_shown=lambda each: bool(each.user_id) in _STATES[state],
    )
    return render_template("customers.html", page=page, state=state, states=_STATES)


@customers.get(f"/customers/{ID.format('stripe_id')}")
def show(stripe_id: str) -> str:
    """Show a customer, with what is stored with it, and its events.

    There are events of customers that are not stored: erased ones, or those of others.
    """
    customer = StripeCustomer.get_by_stripe_id(stripe_id)
    before = place_in(request.args.get("before"))
    created_to = before.created if before else None
    events = StripeEvent.find(customer_id=stripe_id, created_to=created_to)
    page = page_of(events, lambda event: Place(event.created, event.stripe_id), before)
    if customer is None and not page.rows and before is None:
        abort(404, f"neither {stripe_id} nor an event of it is stored")
    return render_template("customer.html", stripe_id=stripe_id, customer=customer, page=page)


@customers.post(f"/customers/{ID.format('stripe_id')}/sync")
def sync(stripe_id: str) -> Any:
    """Update a customer from Stripe."""
    customer = StripeCustomer.get_by_stripe_id(stripe_id)
    if customer is None or customer.user_id is None:
        abort(404, f"{stripe_id} is not a user's customer")
    call(stack(), "SyncCustomer", "POST /customers/sync", user_id=customer.user_id)
    return redirect(url_for("customers.show", stripe_id=stripe_id, done="synchronized"))


@customers.post("/find")
def find() -> Any:
    """Show what a form names: users and e-mails are never part of an address."""
    by, text = request.form.get("by", ""), request.form.get("text", "").strip()
    if not text:
        abort(400, "nothing to look for was given")
    if by == "email":
        found = list(islice(StripeCustomer.find_by_email(text), PAGE_ROWS))
        rows = [(each, bool(each.user_id) or _has_page(str(each.stripe_id))) for each in found]
        return render_template("found.html", rows=rows)
    if by == "user":
        customer = StripeCustomer.get(User(text))
        if customer is None:
            abort(404, "this user has no customer, or it is being created")
        return redirect(url_for("customers.show", stripe_id=customer.stripe_id))
    # What is not stored may be anything, an e-mail too.
    if len(text) <= MAX_ID and _has_page(text):
        return redirect(url_for("customers.show", stripe_id=text))
    if len(text) <= MAX_ID and StripeEvent.get(text):
        return redirect(url_for("events.show", event_id=text))
    return abort(404, "no customer and no event with this id is stored")


def _has_page(stripe_id: str) -> bool:
    """Whether a customer is stored, or an event of it."""
    if StripeCustomer.get_by_stripe_id(stripe_id):
        return True
    return next(StripeEvent.find(customer_id=stripe_id), None) is not None
