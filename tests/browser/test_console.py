"""What the console offers, done in Chromium on a deployed local cloud."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import count
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from local.cloud import Cloud
from local.stripe_double import StripeDouble
from tests.browser.conftest import TIMEOUT_MS, Console
from tests.local_cloud.test_events import make_due_for_the_last_time

_numbers = count(1)

expect.set_options(timeout=TIMEOUT_MS)


@contextmanager
def double(cloud: Cloud) -> Iterator[StripeDouble]:
    assert cloud.stripe.double, "these tests need the double: unset STRIPE_API_KEY"
    with cloud.stripe.double.use() as stripe:
        yield stripe


@pytest.fixture
def user() -> str:
    return f"user-{next(_numbers)}"


@pytest.fixture
def customer(cloud: Cloud, user: str) -> str:
    """The Stripe customer of the user, whose events are applied."""
    body = json.dumps({"user_id": user, "billing_email": f"{user}@example.com"}).encode()
    created = cloud.request("POST", "/customers", body)
    assert created.status == 201
    stripe_id: str = created.body["stripe_id"]
    cloud.wait_until(lambda: events_of(cloud, stripe_id) == ["applied"], "it is applied")
    return stripe_id


def events_of(cloud: Cloud, customer: str) -> list[str]:
    """The states of a customer's events."""
    return [
        item["state"]
        for item in cloud.items()
        if item.get("record_type") == "Event" and item.get("customer_id") == customer
    ]


def rename(cloud: Cloud, customer: str, name: str) -> None:
    with double(cloud) as stripe:
        stripe.change_customer(customer, name=name)


def one_failed(cloud: Cloud, customer: str) -> str:
    """Let an event of the customer fail, as it does after forty attempts."""
    (event,) = [
        item
        for item in cloud.items()
        if item.get("record_type") == "Event" and item.get("customer_id") == customer
    ]
    make_due_for_the_last_time(cloud.client("dynamodb"), cloud.table_name, event["pk"])
    cloud.invoke(cloud.reconcile_events, {})
    stripe_id: str = event["stripe_id"]
    return stripe_id


def accept_next_dialog(page: Page) -> None:
    """Confirm the next question."""
    page.once("dialog", lambda dialog: dialog.accept())


class TestEveryPage:
    @pytest.mark.parametrize(
        "path",
        [
            "/customers",
            "/customers?state=unassigned",
            "/events",
            "/events?state=waiting",
            "/live",
            "/charts",
            "/charts?range=7d",
            "/runs",
            "/double/",
        ],
    )
    def test_is_accessible(self, console: Console, customer: str, path: str) -> None:
        console.open(path)
        console.check_accessibility()

    def test_is_reached_by_the_keyboard(self, console: Console) -> None:
        page = console.page
        console.open("/customers")
        page.keyboard.press("Tab")
        expect(page.get_by_text("Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()
        console.open("/customers")
        for title in ("Customers", "Events", "Live", "Charts", "Runs", "API", "Stripe double"):
            link = page.get_by_role("navigation", name="Pages").get_by_role("link", name=title)
            for _ in range(20):
                if link.evaluate("link => link === document.activeElement"):
                    break
                page.keyboard.press("Tab")
            expect(link).to_be_focused()

    def test_has_every_call_of_the_api(self, console: Console) -> None:
        console.open("/api/")
        expect(console.page.locator(".opblock")).not_to_have_count(0)
        assert console.page.locator(".opblock").count() >= 10


class TestCustomers:
    def test_are_listed_and_shown_with_their_events(
        self, console: Console, cloud: Cloud, user: str, customer: str
    ) -> None:
        with double(cloud) as stripe:
            stripe.request(
                "POST",
                "/v1/payment_methods/pm_card_visa/attach",
                {"customer": customer},
                {"Authorization": f"Bearer {cloud.stripe.api_key}"},
            )
        cloud.wait_until(lambda: len(events_of(cloud, customer)) == 2, "both are stored")
        cloud.wait_until(lambda: set(events_of(cloud, customer)) == {"applied"}, "both are applied")
        page = console.page
        console.open("/customers")
        page.get_by_role("link", name=customer).click()
        expect(page.get_by_text(f"Customer of user {user}")).to_be_visible()
        expect(page.get_by_role("region", name="Cards")).to_contain_text("visa")
        timeline = page.locator(".timeline li")
        expect(timeline).to_have_count(2)
        # Those of one second are in the order of their ids.
        attached = timeline.filter(has_text="payment_method.attached")
        expect(attached).to_contain_text(f"applied to {customer} of user {user}")
        console.check_accessibility()

    def test_are_updated_from_stripe(self, console: Console, cloud: Cloud, customer: str) -> None:
        with double(cloud) as stripe:
            stripe.webhooks.drop_next()
        rename(cloud, customer, "Renamed on Stripe")
        page = console.page
        console.open(f"/customers/{customer}")
        expect(page.locator("main")).not_to_contain_text("Renamed on Stripe")
        page.get_by_role("button", name="Synchronize with Stripe").click()
        expect(page.get_by_role("status")).to_contain_text("was synchronized with Stripe")
        expect(page.locator("main")).to_contain_text("Renamed on Stripe")

    @pytest.mark.parametrize("by", ["user id", "Stripe id", "e-mail on Stripe"])
    def test_are_found(
        self, console: Console, cloud: Cloud, user: str, customer: str, by: str
    ) -> None:
        texts = {
            "user id": user,
            "Stripe id": customer,
            "e-mail on Stripe": f"{user}@example.com",
        }
        page = console.page
        page.get_by_label("Find by").select_option(by)
        page.get_by_label("What to find").fill(texts[by])
        page.get_by_role("button", name="Find").click()
        expect(page.locator("main")).to_contain_text(customer)
        assert quote(user) not in page.url
        console.check_accessibility()


class TestEvents:
    def test_that_failed_is_replayed(self, console: Console, cloud: Cloud, customer: str) -> None:
        failed = one_failed(cloud, customer)
        page = console.page
        console.open("/events")
        console.check_accessibility()
        page.get_by_role("link", name=failed).click()
        expect(page.locator("main")).to_contain_text("too many attempts")
        page.get_by_text("Show what Stripe sent").click()
        expect(page.get_by_role("region", name="Payload")).to_contain_text('"customer.created"')
        console.check_accessibility()
        page.get_by_role("button", name=f"Replay {failed}").click()
        expect(page.get_by_role("status")).to_contain_text("Replayed")
        assert events_of(cloud, customer) == ["applied"]

    def test_that_failed_are_replayed_together(
        self, console: Console, cloud: Cloud, customer: str
    ) -> None:
        one_failed(cloud, customer)
        page = console.page
        console.open("/events")
        page.once("dialog", lambda dialog: dialog.dismiss())
        page.get_by_role("button", name="Replay all failed events").click()
        assert events_of(cloud, customer) == ["failed"]
        accept_next_dialog(page)
        page.get_by_role("button", name="Replay all failed events").click()
        expect(page.locator("main")).to_contain_text("No events in this state")
        assert events_of(cloud, customer) == ["applied"]

    def test_appear_as_they_change(self, console: Console, cloud: Cloud, customer: str) -> None:
        page = console.page
        console.open("/live")
        expect(page.get_by_text("Connected")).to_be_visible()
        rename(cloud, customer, "<b>Live</b>")
        row = page.locator("#live tr", has_text="customer.updated").filter(has_text="applied")
        expect(row.first).to_contain_text(customer)
        console.check_accessibility()


class TestCharts:
    def test_have_the_values_of_the_metrics(
        self, console: Console, cloud: Cloud, customer: str
    ) -> None:
        page = console.page

        def received() -> int:
            console.open("/charts")
            page.get_by_text("Values of events received").click()
            cells = page.get_by_role("region", name="Events received").locator("tbody td")
            return sum(float(text or 0) for text in cells.all_inner_texts()[1::3]) >= 1

        cloud.wait_until(received, "the metrics are there")
        expect(page.get_by_role("img", name="Outcomes")).to_be_visible()
        assert page.locator("img").first.evaluate("image => image.naturalWidth") > 0


class TestRuns:
    def test_is_verified_stopped_and_resumed(
        self, console: Console, cloud: Cloud, customer: str
    ) -> None:
        page = console.page
        console.open("/runs")
        with double(cloud) as stripe:
            stripe.faults.delay(3, None, match="GET /v1/customers")
        accept_next_dialog(page)
        page.get_by_role("button", name="Verify").click()
        accept_next_dialog(page)
        page.get_by_role("button", name="Stop").click()
        expect(page.locator("#progress .state")).to_have_text("stopped")
        with double(cloud) as stripe:
            stripe.faults.clear()
        page.get_by_role("button", name="Resume").click()
        expect(page.locator("#progress .state")).to_have_text("finished")
        console.check_accessibility()


class TestStripeDouble:
    @pytest.fixture(autouse=True)
    def no_faults(self, cloud: Cloud) -> Iterator[None]:
        yield
        with double(cloud) as stripe:
            stripe.faults.clear()
            stripe.webhooks.release()

    def test_loses_an_event(self, console: Console, cloud: Cloud, customer: str) -> None:
        console.open("/double/")
        console.page.get_by_role("button", name="Lose the next deliveries").click()
        rename(cloud, customer, "Lost")
        cloud.wait_until(
            lambda: not cloud.stripe.double or cloud.stripe.double.wait_until_delivered(1),
            "deliveries end",
        )
        assert events_of(cloud, customer) == ["applied"]

    def test_sends_twice(self, console: Console, cloud: Cloud, customer: str) -> None:
        console.open("/double/")
        console.page.get_by_role("button", name="Send the next deliveries twice").click()
        rename(cloud, customer, "Twice")

        def deliveries() -> int:
            with double(cloud) as stripe:
                last = [each["event"] for each in stripe.webhooks.log]
                return last.count(last[-1])

        cloud.wait_until(lambda: deliveries() == 2, "it is sent twice")
        console.open("/double/")
        expect(console.page.get_by_role("region", name="Deliveries, newest first")).to_contain_text(
            "200"
        )
        console.check_accessibility()

    def test_holds_and_sends_the_newest_first(
        self, console: Console, cloud: Cloud, customer: str
    ) -> None:
        console.open("/double/")
        console.page.get_by_role("button", name="Hold all deliveries").click()
        for name in ("Older", "Newer"):
            rename(cloud, customer, name)
        console.open("/double/")
        expect(console.page.get_by_text("Pending: 2")).to_be_visible()
        console.page.get_by_role("button", name="Send what is held, newest first").click()
        cloud.wait_until(lambda: len(events_of(cloud, customer)) == 3, "they are received")
        with double(cloud) as stripe:
            newest, older = [each["event"] for each in stripe.webhooks.log[-2:]]
            assert (
                stripe.account.events[newest]["created"]
                >= (stripe.account.events[older]["created"])
            )

    @pytest.mark.parametrize(
        ("button", "kind"),
        [
            ("Be slow in the next responses", "delay"),
            ("Fail the next requests with 500", "fail"),
            ("Refuse the next requests with 429", "refuse"),
        ],
    )
    def test_is_slow_or_fails(self, console: Console, button: str, kind: str) -> None:
        page = console.page
        console.open("/double/")
        page.get_by_label("How many").fill("7")
        page.get_by_role("button", name=button).click()
        faults = page.get_by_role("region", name="Faults", exact=True)
        expect(faults).to_contain_text(kind)
        expect(faults).to_contain_text("7")
        page.get_by_role("button", name="Clear all faults").click()
        expect(page.locator("main")).to_contain_text("There are none")


class TestOtherPages:
    def test_get_and_change_nothing(self, console: Console, cloud: Cloud, customer: str) -> None:
        """A page of another server on this machine, in the browser of the operator."""
        one_failed(cloud, customer)
        with other_server() as other:
            page = console.page.context.new_page()
            page.goto(other)
            read = page.evaluate(
                """async (address) => {
                    const given = {credentials: "include"};
                    const sent = {...given, method: "POST", mode: "no-cors"};
                    const [read] = await Promise.allSettled([
                        fetch(address + "/customers", given),
                        fetch(address + "/events/replay-failed", sent),
                    ]);
                    return read.status;
                }""",
                console.base,
            )
            assert read == "rejected"
            assert events_of(cloud, customer) == ["failed"]
            page.close()


@contextmanager
def other_server() -> Iterator[str]:
    """Another server on this machine, with an empty page."""

    class Empty(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Empty) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()
