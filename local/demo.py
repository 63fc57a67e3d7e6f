"""``make demo``: the life of one customer, step by step, on the local cloud.

Each step prints its requests, the responses and the table, and checks them. A check that fails ends
the demo.
"""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import stripe

from local.cloud import Cloud, CloudError, Response, local_cloud, printed_step, stack_outputs
from local.stripe_double import StripeDoubleServer, sign

USER = "user-1"
EMAIL = "jenny.rosen@example.com"
EXISTING_USER, EXISTING_EMAIL = "user-2", "jon.roe@example.com"
ENDED = ("applied", "ignored")
ITEM_WIDTH = 58
LINE_WIDTH = 110


class StepFailedError(Exception):
    """A check of a step failed."""


class Output:
    """The output of the demo: in colour on a terminal, plain elsewhere."""

    def __init__(self) -> None:
        self._colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        self._steps = 0

    def step(self, title: str, why: str) -> None:
        """Print the heading of a step."""
        self._steps += 1
        self.line("")
        self.line(f"{self._steps}. {title}", "1;36")
        self.line(f"   {why}", "2")

    def request(self, text: str, body: object = None) -> None:
        """Print a request."""
        suffix = "" if body is None else f" {json.dumps(body)}"
        self.line(f"   → {text}{suffix}", "33")

    def response(self, response: Response) -> None:
        """Print a response without its empty fields."""
        self.line(f"   ← {response.status}", "32" if response.status < 400 else "35")
        if response.body:
            self.line(f"     {format_json(without_empty(response.body), '     ')}")

    def table(self, before: Mapping[str, str], after: Mapping[str, str]) -> None:
        """Print the table: items that are new (+), changed (~), deleted (-), unchanged.

        Unchanged events are only counted.
        """
        self.line("   the table:", "2")
        old_events = 0
        for key in [*after, *(before.keys() - after.keys())]:
            mark, colour = change_mark(before.get(key), after.get(key))
            if not mark and key.startswith("EVENT#"):
                old_events += 1
            else:
                self.line(f"   {mark:<1} {key:<{ITEM_WIDTH}} {after.get(key, '')}".rstrip(), colour)
        if old_events:
            self.line(f"     … {old_events} older events", "2")

    def line(self, text: str, colour: str = "") -> None:
        """Print a line."""
        print(f"\033[{colour}m{text}\033[0m" if self._colour and colour else text, flush=True)


def change_mark(before: str | None, after: str | None) -> tuple[str, str]:
    """Return the mark and the colour of an item of the table."""
    if before == after:
        return "", "2"
    if before is None:
        return "+", "32"
    return ("-", "31") if after is None else ("~", "33")


class Demo:
    """The steps of the demo, on one cloud."""

    def __init__(self, cloud: Cloud, output: Output) -> None:
        self.cloud = cloud
        self.output = output
        self.stripe = cloud.stripe.client()
        self.began = int(time.time()) - 1
        self.last_table: Mapping[str, str] = {}
        self.existing: set[str] = set()

    def run(self) -> None:
        """Run all steps."""
        customer = self.create()
        self.create_again(customer)
        self.webhook_arrives(customer)
        self.update(customer)
        self.card_and_subscription(customer)
        self.change_on_stripe(customer)
        if self.cloud.stripe.double:
            self.out_of_order(customer, self.cloud.stripe.double)
            self.lost_webhook(customer, self.cloud.stripe.double)
        self.sync(customer)
        self.replay(customer)
        self.forged_webhook(customer)
        self.soft_delete(customer)
        self.not_found()
        self.new_customer(customer)
        self.adopt()
        self.migrate()

    def create(self) -> str:
        self.output.step(
            "Create a customer", "A backend signs its call with IAM and gets a customer."
        )
        body = {"user_id": USER, "billing_email": EMAIL, "name": "Jenny Rosen"}
        response = self.call("POST", "/customers", body)
        self.expect(response.status == 201, "201: the customer is new")
        customer: str = response.body["stripe_id"]
        self.expect(response.body["email"] == EMAIL, "the response is the customer on Stripe")
        self.expect(self.customers_on_stripe() == {customer}, "Stripe has this one customer")
        self.show_table()
        return customer

    def create_again(self, customer: str) -> None:
        self.output.step(
            "Create it again", "A user has one customer, however often create is called."
        )
        response = self.call("POST", "/customers", {"user_id": USER, "billing_email": EMAIL})
        self.expect(response.status == 200, "200: it existed already")
        self.expect(response.body["existing"] is True, "and the response says so")
        self.expect(response.body["stripe_id"] == customer, "it is the same customer")
        self.expect(self.customers_on_stripe() == {customer}, "Stripe still has one")
        self.show_table()

    def webhook_arrives(self, customer: str) -> None:
        self.output.step(
            "Stripe's webhook arrives",
            "Stripe sends customer.created: it is stored and linked at once, then applied.",
        )
        self.output.request("Stripe POSTs customer.created to the Function URL")
        self.wait_for_event("customer.created", customer)
        self.show_table()

    def update(self, customer: str) -> None:
        self.output.step(
            "Update the customer", "The change is made on Stripe, and its response is stored."
        )
        response = self.call("PATCH", f"/customers/{USER}", {"phone": "+32 2 555 01 02"})
        self.expect(response.status == 200, "200")
        on_stripe = self.stripe.v1.customers.retrieve(customer)
        self.expect(
            response.body["phone"] == on_stripe.phone == "+32 2 555 01 02",
            "the record and Stripe have the new phone number",
        )
        self.show_table()

    def card_and_subscription(self, customer: str) -> None:
        self.output.step(
            "Add a card and a subscription on Stripe",
            "As a checkout page does. Both are stored here by their webhooks.",
        )
        subscription = self.subscribe(customer)
        self.cloud.wait_until(
            lambda: (
                any(card["is_default"] for card in self.read()["cards"])
                and self.read()["subscriptions"]
            ),
            "the default card and the subscription are stored",
        )
        response = self.call("GET", f"/customers/{USER}")
        self.expect(response.status == 200, "200")
        self.expect(
            [card["last4"] for card in response.body["cards"]] == ["4242"],
            "the customer has the card that ends in 4242",
        )
        self.expect(response.body["cards"][0]["is_default"], "which is the default")
        self.expect(
            [(s["stripe_id"], s["status"]) for s in response.body["subscriptions"]]
            == [(subscription, "active")],
            "and the active subscription",
        )
        self.wait_for_event("customer.subscription.created", customer)
        self.show_table()

    def change_on_stripe(self, customer: str) -> None:
        self.output.step(
            "Change the customer on Stripe",
            "In the dashboard, for example. The change is stored here by its webhook.",
        )
        self.call_stripe(
            f"POST /v1/customers/{customer}",
            {"name": "Jenny Rosen-Meyer", "phone": "+15555550123"},
            lambda change: self.stripe.v1.customers.update(customer, change),
        )
        self.cloud.wait_until(
            lambda: self.read()["name"] == "Jenny Rosen-Meyer", "the new name is stored"
        )
        response = self.call("GET", f"/customers/{USER}")
        self.expect(response.body["phone"] == "+15555550123", "name and phone are the new ones")
        self.wait_for_event("customer.updated", customer)
        self.show_table()

    def out_of_order(self, customer: str, double: StripeDoubleServer) -> None:
        self.output.step(
            "Deliver webhooks twice and in reverse order",
            "The order of arrival does not matter: the record equals Stripe's in the end.",
        )
        with double.use() as stripe_double:
            stripe_double.webhooks.hold()
            stripe_double.webhooks.duplicate_next(3, "customer.updated")
        for number in ("+15555550001", "+15555550002", "+15555550003"):
            self.call_stripe(
                f"POST /v1/customers/{customer}",
                {"phone": number},
                lambda change: self.stripe.v1.customers.update(customer, change),
            )
        with double.use() as stripe_double:
            before = len(stripe_double.webhooks.log)
            changes = [event["id"] for event in stripe_double.account.events.values()][-3:]
            stripe_double.webhooks.release("reversed")
        self.output.request(
            "Stripe POSTs six times: the three events, each twice, the newest first"
        )
        double.wait_until_delivered()
        self.cloud.wait_until(
            lambda: all(self.state_of(event) in ENDED for event in changes),
            "all three events are applied or ignored",
        )
        with double.use() as stripe_double:
            statuses = [delivery["status"] for delivery in stripe_double.webhooks.log[before:]]
        self.expect(statuses == [200] * 6, "each delivery gets a 200")
        self.expect(self.read()["phone"] == "+15555550003", "the phone is that of the last change")
        stored = [item for item in self.cloud.items() if item.get("stripe_id") in changes]
        self.expect(len(stored) == 3, "each event is stored once")
        self.show_table()

    def lost_webhook(self, customer: str, double: StripeDoubleServer) -> None:
        self.output.step(
            "Lose a webhook",
            "Every few minutes reconcile_events lists Stripe's events and stores missing ones.",
        )
        with double.use() as stripe_double:
            stripe_double.webhooks.drop_next(1, "customer.updated")
        self.call_stripe(
            f"POST /v1/customers/{customer}",
            {"phone": "+15555550199"},
            lambda change: self.stripe.v1.customers.update(customer, change),
        )
        with double.use() as stripe_double:
            lost = list(stripe_double.account.events)[-1]
        self.expect(self.read()["phone"] == "+15555550003", "the change is not known here")
        self.invoke("reconcile_events", self.cloud.reconcile_events, {})
        # The schedule may have recovered it first.
        self.expect(self.state_of(lost) is not None, "the event is recovered")
        self.cloud.wait_until(lambda: self.state_of(lost) == "applied", "it is applied")
        self.expect(self.read()["phone"] == "+15555550199", "and the phone is current")
        self.show_table()

    def replay(self, customer: str) -> None:
        self.output.step(
            "Replay an event",
            "Whatever its state, it is applied again with Stripe's current data.",
        )
        event = next(
            item["stripe_id"]
            for item in sorted(self.cloud.items(), key=sort_key, reverse=True)
            if item["record_type"] == "Event" and item.get("customer_id") == customer
        )
        before = self.read()
        response = self.invoke("replay_events", self.cloud.replay_events, {"event_id": event})
        self.expect(response["replayed"] == 1, "one event is replayed")
        self.expect(self.state_of(event) == "applied", "it is applied again")
        self.expect(self.read() == before, "which changes nothing: the record was current")
        self.show_table()

    def sync(self, customer: str) -> None:
        self.output.step(
            "Synchronize the customer",
            "Fetches customer, cards and subscriptions from Stripe and stores them.",
        )
        double = self.cloud.stripe.double
        if double:
            self.output.line(
                "   (the double holds its webhooks, so that only sync can store the change)", "2"
            )
            with double.use() as stripe_double:
                stripe_double.webhooks.hold()
        self.call_stripe(
            f"POST /v1/customers/{customer}",
            {"description": "pays by invoice"},
            lambda change: self.stripe.v1.customers.update(customer, change),
        )
        response = self.call("POST", f"/customers/{USER}/sync")
        self.expect(response.status == 200, "200")
        self.expect(response.body["description"] == "pays by invoice", "the change is stored")
        if double:
            with double.use() as stripe_double:
                stripe_double.webhooks.release()
            double.wait_until_delivered()
        self.show_table()

    def forged_webhook(self, customer: str) -> None:
        self.output.step(
            "Forge a webhook",
            "Its payload deletes the customer, but its signature is not Stripe's.",
        )
        forged = {
            "id": "evt_forged",
            "object": "event",
            "type": "customer.deleted",
            "livemode": False,
            "created": int(time.time()),
            "data": {"object": {"id": customer, "object": "customer", "deleted": True}},
        }
        body = json.dumps(forged).encode()
        self.output.request(f"POST {self.cloud.webhook_url}", forged)
        response = self.cloud.deliver(body, sign(body, "whsec_guessed", time.time()))
        self.output.response(response)
        self.expect(response.status == 400, "400: refused")
        stored = {item["pk"] for item in self.cloud.items()}
        self.expect("EVENT#evt_forged" not in stored, "nothing of it is stored")
        self.expect(self.read()["is_active"], "the customer is unchanged")
        self.show_table()

    def soft_delete(self, customer: str) -> None:
        self.output.step("Soft-delete the customer", "The record remains, but it is not active.")
        response = self.call("DELETE", f"/customers/{USER}")
        self.expect(response.status == 204, "204")
        record = next(item for item in self.cloud.items() if item["sk"] == f"CUSTOMER#{customer}")
        self.expect(not record["is_active"], "the record is not active any more")
        self.expect(bool(record["date_purged"]), "and has the time of its deletion")
        self.show_table()

    def not_found(self) -> None:
        self.output.step("Read it again", "The API does not return a soft-deleted customer.")
        response = self.call("GET", f"/customers/{USER}")
        self.expect(response.status == 404, "404")
        kind = {name.lower(): value for name, value in response.headers.items()}["content-type"]
        self.expect(kind.startswith("application/problem+json"), "as application/problem+json")
        self.show_table()

    def new_customer(self, old: str) -> None:
        self.output.step("Create again", "After a soft delete the user starts with a new customer.")
        response = self.call("POST", "/customers", {"user_id": USER, "billing_email": EMAIL})
        self.expect(response.status == 201, "201: a new one")
        new: str = response.body["stripe_id"]
        self.expect(new != old, "with another id")
        self.expect(
            self.customers_on_stripe() == {old, new}, "Stripe has the old one and the new one"
        )
        self.wait_for_event("customer.created", new)
        self.show_table()

    def adopt(self) -> None:
        self.output.step(
            "Adopt a customer",
            "Another program created it on Stripe, with a subscription. Now it is a user's.",
        )
        made = self.call_stripe(
            "POST /v1/customers",
            {"email": EXISTING_EMAIL, "name": "Jon Roe"},
            self.stripe.v1.customers.create,
        )
        self.existing.add(made.id)
        subscription = self.subscribe(made.id)
        path, body = f"/customers/{EXISTING_USER}", {"stripe_id": made.id}
        response = self.call("PUT", path, body)
        self.expect(response.status == 201, "201: the user had no customer")
        ids = [found["stripe_id"] for found in response.body["subscriptions"]]
        self.expect(ids == [subscription], "the customer comes with its subscription")
        self.expect(self.call("PUT", path, body).status == 200, "200: a repeated call is harmless")
        response = self.call("PUT", f"/customers/{USER}", body)
        self.expect(response.status == 409, "409: no other user gets it")
        self.show_table()

    def migrate(self) -> None:
        self.output.step(
            "Migrate existing customers",
            "A file has their users; a state machine reads the account, and stores them.",
        )
        rows = {f"user-{number}": self.make_existing(number) for number in range(3, 7)}
        lines = "".join(f"{user},{customer}\n" for user, customer in rows.items())
        outputs = stack_outputs(self.cloud.endpoint)
        bucket, machine = outputs["ReportsBucket"], outputs["WalkMachineArn"]
        mapping = "mappings/users.csv"
        self.output.request(f"PUT s3://{bucket}/{mapping}", f"user_id,stripe_id\n{lines}")
        self.cloud.client("s3").put_object(
            Bucket=bucket, Key=mapping, Body=f"user_id,stripe_id\n{lines}".encode()
        )
        self.invoke("reconcile_events", self.cloud.reconcile_events, {})  # sweeps before a walk
        self.output.request("start the state machine", {"mapping": mapping})
        self.cloud.client("stepfunctions").start_execution(
            stateMachineArn=machine, name="demo", input=json.dumps({"mapping": mapping})
        )
        shown: list[object] = []

        def has_finished() -> bool:
            if "RUN#demo" not in {item["pk"] for item in self.cloud.items()}:
                return False  # it has not been started yet
            walk = outputs["WalkAccountName"]
            status = self.cloud.invoke(walk, {"action": "status", "run_id": "demo"})
            progress = f"{status['state']}: {status['objects']} read, {status['results']}"
            if progress not in shown:
                shown.append(progress)
                self.output.line(f"   {progress}", "32")
            return bool(status["state"] == "finished")

        self.cloud.wait_until(has_finished, "the walk is finished")
        for user, customer in rows.items():
            found = self.cloud.request("GET", f"/customers/{user}").body
            self.expect(found.get("stripe_id") == customer, f"{user} has {shorten_ids(customer)}")
        self.expect(bool(found["subscriptions"]), "with the subscription of the last one")
        self.show_table()

    def make_existing(self, number: int) -> str:
        """Create a customer on Stripe, as another program would; the last has a subscription."""
        customer = self.stripe.v1.customers.create(
            {"email": EXISTING_EMAIL, "name": f"No. {number}"}
        )
        self.existing.add(customer.id)
        if number == 6:
            self.subscribe(customer.id)
        return customer.id

    def clean_up(self) -> None:
        """Delete the customers from a real test account; a double ends with the cloud."""
        if not self.cloud.stripe.double:
            for customer in {*self.customers_on_stripe(), *self.existing}:
                self.stripe.v1.customers.delete(customer)

    def subscribe(self, customer: str) -> str:
        card = self.call_stripe(
            "POST /v1/payment_methods/pm_card_visa/attach",
            {"customer": customer},
            lambda given: self.stripe.v1.payment_methods.attach("pm_card_visa", given),
        )
        self.call_stripe(
            f"POST /v1/customers/{customer}",
            {"invoice_settings": {"default_payment_method": card.id}},
            lambda given: self.stripe.v1.customers.update(customer, given),
        )
        price = self.call_stripe(
            "POST /v1/prices",
            {
                "currency": "eur",
                "unit_amount": 900,
                "recurring": {"interval": "month"},
                "product_data": {"name": "Membership"},
            },
            self.stripe.v1.prices.create,
        )
        subscription = self.call_stripe(
            "POST /v1/subscriptions",
            {"customer": customer, "items": [{"price": price.id}]},
            self.stripe.v1.subscriptions.create,
        )
        return str(subscription.id)

    def call_stripe(self, text: str, given: Any, call: Callable[[Any], Any]) -> Any:
        """Change something on Stripe without the product, and print it."""
        self.output.request(f"on Stripe: {text}", given)
        return call(given)

    def call(self, method: str, path: str, body: object = None) -> Response:
        """Call the API and print request and response."""
        self.output.request(f"{method} {path}", body)
        response = self.cloud.request(method, path, body)
        self.output.response(response)
        return response

    def invoke(self, function: str, name: str, event: Any) -> Any:
        """Invoke a function directly and print event and result."""
        self.output.request(f"invoke {function}", event)
        response = self.cloud.invoke(name, event)
        self.output.line(f"   ← {json.dumps(response)}", "32")
        return response

    def state_of(self, event: str) -> str | None:
        """Return the state of an event; None if it is not stored."""
        found = (item for item in self.cloud.items() if item["pk"] == f"EVENT#{event}")
        return next((item["state"] for item in found), None)

    def read(self) -> Any:
        """Return the customer from the API without printing it."""
        return self.cloud.request("GET", f"/customers/{USER}").body

    def customers_on_stripe(self) -> set[str]:
        """Return the ids of all customers of this demo on Stripe."""
        listed = self.stripe.v1.customers.list({"email": EMAIL, "created": {"gte": self.began}})
        return {customer.id for customer in listed.auto_paging_iter()}

    def wait_for_event(self, kind: str, customer: str) -> None:
        """Wait until an event is stored, linked to the user, and applied."""

        def applied() -> bool:
            return any(
                item["sk"] == "EVENT"
                and item["kind"] == kind
                and item.get("customer_id") == customer
                and item.get("user_id") == USER
                and item["state"] == "applied"
                for item in self.cloud.items()
            )

        self.cloud.wait_until(applied, f"{kind} is stored, linked and applied")
        self.output.line(f"   ✓ {kind} is stored, linked to {USER} and applied", "32")

    def expect(self, is_true: bool, what: str) -> None:
        """Print a check, or raise `StepFailedError` if it failed."""
        if not is_true:
            raise StepFailedError(what)
        self.output.line(f"   ✓ {what}", "32")

    def show_table(self) -> None:
        """Print the table."""
        items = sorted(self.cloud.items(), key=sort_key)
        table = {
            shorten_ids(f"{item['pk']}  {item['sk']}"): shorten_ids(summarise(item))
            for item in items
        }
        self.output.table(self.last_table, table)
        self.last_table = table


_PARTITIONS = ("USER", "UNASSIGNED", "STRIPE", "EVENT", "RUN", "SWEEP", "DEPLOYMENT")


def sort_key(item: Mapping[str, Any]) -> tuple[int, Any, str]:
    """Return the sort key of an item: users, pointers, then events in the order of arrival."""
    kind = item["pk"].partition("#")[0]
    return (
        _PARTITIONS.index(kind),
        item.get("received_at", item["pk"]),
        item["sk"],
    )


def shorten_ids(text: str) -> str:
    """Return `text` with Stripe's ids shortened."""
    return re.sub(r"\b((?:cus|evt|pm|sub)_\w{6})\w+", r"\1…", text)


def summarise(item: Mapping[str, Any]) -> str:
    """Return a short description of an item."""
    return SUMMARIES[item["record_type"]](item)


def summarise_customer(item: Mapping[str, Any]) -> str:
    """Return a short description of a customer: the fields that the demo changes."""
    state = "active" if item["is_active"] else "soft-deleted"
    words = [
        item.get("name"),
        item.get("phone"),
        item.get("description"),
        state,
        f"version {item['version']}",
    ]
    return ", ".join(filter(None, words))


def summarise_pointer(item: Mapping[str, Any]) -> str:
    """What a pointer leads to, in a few words."""
    if "erased_at" in item:
        return "the customer was erased"
    return f"belongs to {item.get('user_id') or item.get('customer_id', 'no user')}"


SUMMARIES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "CustomerClaim": lambda item: f"points to {item.get('stripe_id', 'none yet')}",
    "Customer": summarise_customer,
    "Card": lambda item: f"{item['brand']} {item['last4']}",
    "Subscription": lambda item: str(item["status"]),
    "TaxId": lambda item: f"{item['type']} {item['country']}",
    "PaymentMethod": lambda item: str(item["type"]),
    "Entitlement": lambda item: str(item["lookup_key"]),
    "Pointer": summarise_pointer,
    "MetadataUpdate": lambda _: "the metadata on Stripe is due to be written",
    "Erasure": lambda item: f"erases {', '.join(json.loads(item['customers']))}",
    "Run": lambda item: f"{item['state']}, {item.get('mapping')}",
    "RunLock": lambda item: f"the last run is {item['run_id']}",
    "Window": lambda item: f"{'done' if item['is_done'] else 'in progress'}, {item['counts']}",
    "RateBudget": lambda item: f"{item['rate']} per second",
    "Suspicion": lambda item: f"{item['kind']} {item['stripe_id']}, to be checked again",
    "Difference": lambda item: f"{item['kind']} {item['stripe_id']}",
    "Candidate": lambda item: (
        f"{item['stripe_id']} may be assigned to the user that its metadata names"
    ),
    "LookupCursor": lambda _: "position of the lookups of waiting events",
    "Event": lambda item: f"{item['kind']}, {item['state']}",
    "SweepCursor": lambda _: "position of the sweep of Stripe's events",
    "Deployment": lambda item: f"the table of {item['name']}",
}


def without_empty(value: Any) -> Any:
    """Return `value` without empty fields."""
    if isinstance(value, dict):
        return {k: without_empty(v) for k, v in value.items() if v not in (None, [], {})}
    if isinstance(value, list):
        return [without_empty(v) for v in value]
    return value


def format_json(value: Any, indent: str) -> str:
    """Return `value` as JSON, on one line if it fits."""
    flat = json.dumps(value)
    if len(indent) + len(flat) <= LINE_WIDTH or not isinstance(value, dict | list):
        return flat
    inner = indent + "  "
    if isinstance(value, dict):
        parts = [f"{json.dumps(k)}: {format_json(v, inner)}" for k, v in value.items()]
    else:
        parts = [format_json(v, inner) for v in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n{inner}" + f",\n{inner}".join(parts) + f"\n{indent}{closing}"


def logged_errors(cloud: Cloud) -> list[str]:
    """Return the errors that the functions logged."""
    logs = cloud.client("logs")
    groups = logs.describe_log_groups(logGroupNamePrefix="/aws/lambda/")["logGroups"]
    return [
        event["message"].rstrip()
        for group in groups
        for event in logs.filter_log_events(logGroupName=group["logGroupName"])["events"]
        if "ERROR" in event["message"]
    ]


def run(output: Output) -> None:
    """Run the demo on a new cloud."""
    with local_cloud(printed_step) as cloud:
        demo = Demo(cloud, output)
        try:
            demo.run()
        except Exception:
            with suppress(Exception):
                for line in logged_errors(cloud):
                    output.line(line, "31")
            raise
        finally:
            demo.clean_up()


def main() -> int:
    """Run the demo; returns the exit code."""
    output = Output()
    began = time.monotonic()
    try:
        run(output)
    except (StepFailedError, CloudError, stripe.StripeError) as error:
        output.line(f"\n✗ failed: {error}", "1;31")
        return 1
    except KeyboardInterrupt:
        output.line("\nstopped")
        return 130
    output.line(f"\nAll steps passed in {time.monotonic() - began:.0f} s.", "1;32")
    return 0


if __name__ == "__main__":
    sys.exit(main())
