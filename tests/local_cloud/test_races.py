"""Races and crashes, through the deployed API: processes of their own, killed for real."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from local.cloud import Cloud, Response
from local.stripe_double import StripeDoubleServer

CALLS = 50
CREATE = "POST /v1/customers"
CLAIM_SECONDS = 150.0
"""A claim of a worker that died expires in this time."""


def double(cloud: Cloud) -> StripeDoubleServer:
    assert cloud.stripe.double, "these tests need the double: unset STRIPE_API_KEY"
    return cloud.stripe.double


def create(cloud: Cloud, user_id: str) -> Response:
    body = {"user_id": user_id, "billing_email": "jenny@example.com"}
    return cloud.request("POST", "/customers", body)


def create_with_retries(cloud: Cloud, user_id: str) -> Response:
    """Create as a backend does: after a response that says to try again, it repeats the call."""
    for _ in range(10):
        response = create(cloud, user_id)
        if response.status < 500:
            break
    return response


def on_stripe(cloud: Cloud, user_id: str) -> list[str]:
    """The ids of all customers that Stripe ever made for a user."""
    with double(cloud).use() as stripe:
        return [
            customer["id"]
            for customer in stripe.account.customers.values()
            if customer.get("metadata", {}).get("stripe_integrations_user_id") == user_id
        ]


def active_records(cloud: Cloud, user_id: str) -> list[str]:
    return [
        item["stripe_id"]
        for item in cloud.items()
        if item["pk"] == f"USER#{user_id}"
        and item["record_type"] == "Customer"
        and item["is_active"]
    ]


def test_concurrent_creates_make_one_customer(cloud: Cloud) -> None:
    with ThreadPoolExecutor(CALLS) as callers:
        responses = list(callers.map(lambda _: create_with_retries(cloud, "u-fifty"), range(CALLS)))

    statuses = Counter(response.status for response in responses)
    assert statuses[200] + statuses[201] == CALLS
    assert statuses[201] <= 1
    (customer,) = {response.body["stripe_id"] for response in responses}
    assert on_stripe(cloud, "u-fifty") == [customer]
    assert active_records(cloud, "u-fifty") == [customer]


def existing_customers(cloud: Cloud, number: int) -> list[str]:
    """The ids of customers that exist on Stripe alone."""
    params, headers = (
        {"email": "jenny@example.com"},
        {"Authorization": f"Bearer {cloud.stripe.api_key}"},
    )
    with double(cloud).use() as stripe:
        made = [stripe.request("POST", "/v1/customers", params, headers) for _ in range(number)]
    return [response.body["id"] for response in made]


def adopt_with_retries(cloud: Cloud, user_id: str, stripe_id: str) -> Response:
    for _ in range(10):
        response = cloud.request("PUT", f"/customers/{user_id}", {"stripe_id": stripe_id})
        if response.status < 500:
            break
    return response


def changed_on_stripe(cloud: Cloud, stripe_ids: Iterable[str]) -> dict[str, object]:
    """The customers that a request has changed, and the users whom their metadata names."""
    paths = {f"/v1/customers/{stripe_id}": stripe_id for stripe_id in stripe_ids}
    with double(cloud).use() as stripe:
        changed = {paths.get(r.path) for r in stripe.requests if r.method == "POST"} - {None}
        customers = [stripe.account.customers[str(stripe_id)] for stripe_id in changed]
    return {c["id"]: c["metadata"]["stripe_integrations_user_id"] for c in customers}


def wait_for_metadata(cloud: Cloud, stripe_ids: Sequence[str]) -> None:
    """Wait until the metadata is written, by the schedule if the adoption was interrupted."""

    def is_written() -> bool:
        return bool(changed_on_stripe(cloud, stripe_ids)) or not cloud.invoke(
            cloud.reconcile_events, {}
        )

    cloud.wait_until(is_written, "the metadata is written", CLAIM_SECONDS)


def problems(responses: Iterable[Response]) -> Counter[str]:
    """The types of the problems of the responses that have one."""
    found = (
        str(r.body["type"]).rpartition(":")[2] for r in responses if r.status not in (200, 201)
    )
    return Counter(found)


def test_concurrent_adoptions_of_one_customer_have_one_winner(cloud: Cloud) -> None:
    (stripe_id,) = existing_customers(cloud, 1)
    users = [f"u-adopter-{number}" for number in range(CALLS)]
    with ThreadPoolExecutor(CALLS) as callers:
        responses = list(
            callers.map(lambda user_id: adopt_with_retries(cloud, user_id, stripe_id), users)
        )

    assert problems(responses) == {"customer-of-another-user": CALLS - 1}
    (winner,) = (user for user in users if active_records(cloud, user) == [stripe_id])
    wait_for_metadata(cloud, [stripe_id])
    assert changed_on_stripe(cloud, [stripe_id]) == {stripe_id: winner}
    claims = {item["pk"] for item in cloud.items() if item["record_type"] == "CustomerClaim"}
    assert claims & {f"USER#{user}" for user in users} == {f"USER#{winner}"}


def test_concurrent_adoptions_by_one_user_have_one_winner(cloud: Cloud) -> None:
    stripe_ids = existing_customers(cloud, CALLS)
    with ThreadPoolExecutor(CALLS) as callers:
        responses = list(
            callers.map(
                lambda stripe_id: adopt_with_retries(cloud, "u-many", stripe_id), stripe_ids
            )
        )

    assert problems(responses) == {"user-has-another-customer": CALLS - 1}
    (winner,) = active_records(cloud, "u-many")
    wait_for_metadata(cloud, stripe_ids)
    assert changed_on_stripe(cloud, stripe_ids) == {winner: "u-many"}


def user_whose_create_was_killed(cloud: Cloud, *, responds: bool) -> str:
    """A user; a process that has its response may be done before it dies, and another is killed."""
    for number in range(20):
        user_id = f"u-killed-{responds}-{number}"
        with double(cloud).use() as stripe:
            stripe.faults.kill_client_after(1, match=CREATE, responds=responds)
        if create(cloud, user_id).status >= 500:
            return user_id
    raise AssertionError("every process was faster than its death")


@pytest.mark.parametrize("responds", [True, False])
def test_create_killed_after_stripe_responded_is_resumed(cloud: Cloud, responds: bool) -> None:
    with double(cloud).use() as stripe:
        stripe.webhooks.hold()

    user_id = user_whose_create_was_killed(cloud, responds=responds)
    (made,) = on_stripe(cloud, user_id)
    if not responds:  # one that has the response may get as far as the record before it dies
        assert active_records(cloud, user_id) == []

    response = create_with_retries(cloud, user_id)

    assert response.body["stripe_id"] == made
    assert on_stripe(cloud, user_id) == [made]
    assert active_records(cloud, user_id) == [made]
    with double(cloud).use() as stripe:
        stripe.webhooks.release()


def test_webhook_completes_killed_create(cloud: Cloud) -> None:
    with double(cloud).use() as stripe:
        stripe.faults.kill_client_after(1, match=CREATE, responds=False)

    assert create(cloud, "u-webhook").status >= 500

    cloud.wait_until(lambda: active_records(cloud, "u-webhook"), "the webhook has finished it")
    assert active_records(cloud, "u-webhook") == on_stripe(cloud, "u-webhook")


def test_concurrent_creates_survive_a_kill(
    cloud: Cloud,
) -> None:
    with double(cloud).use() as stripe:
        stripe.webhooks.hold()
        stripe.faults.kill_client_after(1, match=CREATE)
    with ThreadPoolExecutor(CALLS) as callers:
        responses = list(callers.map(lambda _: create_with_retries(cloud, "u-both"), range(CALLS)))

    (made,) = on_stripe(cloud, "u-both")
    assert active_records(cloud, "u-both") == [made]
    assert {response.status for response in responses} <= {200, 201}
    assert {response.body["stripe_id"] for response in responses} == {made}
    with double(cloud).use() as stripe:
        stripe.webhooks.release()
