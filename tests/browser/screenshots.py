"""Takes the screenshots in docs/console, of a local cloud with a customer and its events.

Run by ``python -m tests.browser.screenshots``.
"""

from __future__ import annotations

import json
import sys

from local.cloud import ROOT, Cloud, local_cloud, printed_step
from local.console import local_console
from tests.browser.conftest import running_browser

FOLDER = ROOT / "docs" / "console"
SIZE = {"width": 1100, "height": 720}


def main() -> int:
    """Take all screenshots; returns the exit code."""
    FOLDER.mkdir(exist_ok=True)
    with (
        local_cloud(printed_step, {"UnassignedCustomers": "store"}) as cloud,
        local_console(cloud) as address,
        running_browser() as browser,
    ):
        customer = add_customer(cloud)
        base = address.partition("/?")[0]
        pages = {"customer": (f"/customers/{customer}", "light"), "charts": ("/charts", "dark")}
        for name, (path, scheme) in pages.items():
            page = browser.new_page(viewport=SIZE, color_scheme=scheme)  # type: ignore[arg-type]
            page.goto(address)
            page.goto(f"{base}{path}")
            page.screenshot(path=FOLDER / f"{name}-{scheme}.png")
            page.close()
    return 0


def add_customer(cloud: Cloud) -> str:
    """Create a customer that subscribes, wait until its events are applied, and return its id."""
    assert cloud.stripe.double, "this needs the double: unset STRIPE_API_KEY"
    body = {"user_id": "user-1", "billing_email": "jenny@example.com", "name": "Jenny Rosen"}
    created = cloud.request("POST", "/customers", json.dumps(body).encode())
    customer: str = created.body["stripe_id"]
    authorization = {"Authorization": f"Bearer {cloud.stripe.api_key}"}

    def ask(path: str, given: dict[str, object]) -> str:
        with cloud.stripe.double.use() as stripe:  # type: ignore[union-attr]
            response = stripe.request("POST", path, given, authorization)
        identifier: str = response.body["id"]
        return identifier

    card = ask("/v1/payment_methods/pm_card_visa/attach", {"customer": customer})
    product = ask("/v1/products", {"name": "Gold"})
    recurring = {"interval": "month"}
    price = ask(
        "/v1/prices",
        {"product": product, "currency": "eur", "unit_amount": 900, "recurring": recurring},
    )
    ask(
        "/v1/subscriptions",
        {"customer": customer, "items": [{"price": price}], "default_payment_method": card},
    )
    for number in range(1, 5):
        ask(f"/v1/customers/{customer}", {"metadata": {"visits": str(number)}})
    cloud.stripe.double.wait_until_delivered()
    cloud.wait_until(
        lambda: not any(item.get("state") == "pending" for item in cloud.items()),
        "all events are applied",
    )
    cloud.invoke(cloud.reconcile_events, {})
    return customer


if __name__ == "__main__":
    sys.exit(main())
