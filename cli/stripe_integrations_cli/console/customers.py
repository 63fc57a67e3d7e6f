"""The pages of customers: lists, one customer, and its events."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, abort, redirect, render_template, request, url_for

from stripe_integrations.actions import StripeCustomer, StripeEvent, User
from stripe_integrations_cli.api import call
from stripe_integrations_cli.console.connection import stack
from stripe_integrations_cli.console.paging import PAGE_ROWS, Place, page_of, place_in
from stripe_integrations_cli.errors import CommandError

customers = Blueprint("customers", __name__)

_STATES = {"all": None, "active": "active", "unassigned": "unassigned"}


@customers.get("/customers")
def list_customers() -> str:
    """Show the customers in a state, newest first."""
    state = request.args.get("state", "all")
    if state not in _STATES:
        abort(404)
    before = place_in(request.args.get("before"))
    found = StripeCustomer.find(_STATES[state], created_to=before.created if before else None)
    page = page_of(found, lambda each: Place(each.created, str(each.stripe_id)), before)
    return render_template("customers.html", page=page, state=state, states=_STATES)


@customers.get("/customers/<stripe_id>")
def show(stripe_id: str) -> str:
    """Show a customer, with what is stored with it, and its events."""
    customer = StripeCustomer.get_by_stripe_id(stripe_id)
    if customer is None:
        abort(404, f"{stripe_id} is not stored")
    before = place_in(request.args.get("before"))
    created_to = before.created if before else None
    events = StripeEvent.find(customer_id=stripe_id, created_to=created_to)
    page = page_of(events, lambda event: Place(event.created, event.stripe_id), before)
    return render_template("customer.html", customer=customer, page=page)


@customers.post("/customers/<stripe_id>/sync")
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
        raise CommandError("nothing to look for was given")
    if by == "email":
        found = StripeCustomer.find_by_email(text)
        rows = [each for each, _ in zip(found, range(PAGE_ROWS), strict=False)]
        return render_template("found.html", rows=rows)
    if by == "user":
        customer = StripeCustomer.get(User(text))
        if customer is None:
            raise CommandError("this user has no customer, or it is being created")
        return redirect(url_for("customers.show", stripe_id=customer.stripe_id))
    if text.startswith("evt_"):
        return redirect(url_for("events.show", event_id=text))
    return redirect(url_for("customers.show", stripe_id=text))
