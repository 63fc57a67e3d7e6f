"""Races and crashes, through the deployed API: processes of their own, killed for real."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from local.cloud import Answer, Cloud
from local.stripe_double import StripeDoubleServer

CALLS = 50
CREATE = "POST /v1/customers"


def double(cloud: Cloud) -> StripeDoubleServer:
    assert cloud.stripe.double, "these tests need the double: unset STRIPE_API_KEY"
    return cloud.stripe.double


def create(cloud: Cloud, user_id: str) -> Answer:
    body = {"user_id": user_id, "billing_email": "jenny@example.com"}
    return cloud.request("POST", "/customers", body)


def create_until_answered(cloud: Cloud, user_id: str) -> Answer:
    """Create as a backend does: an answer that says to try again is followed by another try."""
    for _ in range(10):
        answer = create(cloud, user_id)
        if answer.status < 500:
            break
    return answer


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
        answers = list(callers.map(lambda _: create_until_answered(cloud, "u-fifty"), range(CALLS)))

    statuses = Counter(answer.status for answer in answers)
    assert statuses[200] + statuses[201] == CALLS
    assert statuses[201] <= 1
    (customer,) = {answer.body["stripe_id"] for answer in answers}
    assert on_stripe(cloud, "u-fifty") == [customer]
    assert active_records(cloud, "u-fifty") == [customer]


def user_whose_create_was_killed(cloud: Cloud, *, answered: bool) -> str:
    """A user; a process that has its answer may be done before it dies, and another is killed."""
    for number in range(20):
        user_id = f"u-killed-{answered}-{number}"
        with double(cloud).use() as stripe:
            stripe.faults.kill_client_after(1, match=CREATE, answered=answered)
        if create(cloud, user_id).status >= 500:
            return user_id
    raise AssertionError("every process was faster than its death")


@pytest.mark.parametrize("answered", [True, False])
def test_create_killed_after_stripe_answered_is_resumed(cloud: Cloud, answered: bool) -> None:
    with double(cloud).use() as stripe:
        stripe.webhooks.hold()

    user_id = user_whose_create_was_killed(cloud, answered=answered)
    (made,) = on_stripe(cloud, user_id)
    if not answered:  # one that has the answer may get as far as the record before it dies
        assert active_records(cloud, user_id) == []

    answer = create_until_answered(cloud, user_id)

    assert answer.body["stripe_id"] == made
    assert on_stripe(cloud, user_id) == [made]
    assert active_records(cloud, user_id) == [made]
    with double(cloud).use() as stripe:
        stripe.webhooks.release()


def test_webhook_completes_killed_create(cloud: Cloud) -> None:
    with double(cloud).use() as stripe:
        stripe.faults.kill_client_after(1, match=CREATE, answered=False)

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
        answers = list(callers.map(lambda _: create_until_answered(cloud, "u-both"), range(CALLS)))

    (made,) = on_stripe(cloud, "u-both")
    assert active_records(cloud, "u-both") == [made]
    assert {answer.status for answer in answers} <= {200, 201}
    assert {answer.body["stripe_id"] for answer in answers} == {made}
    with double(cloud).use() as stripe:
        stripe.webhooks.release()
