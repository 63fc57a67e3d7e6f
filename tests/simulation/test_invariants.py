from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from local.stripe_double.double import StripeDouble
from simulation.aws import SimulatedService
from simulation.custom_handlers import CustomHandlers
from simulation.deliveries import Deliveries
from simulation.faults import FaultProfile, Faults
from simulation.history import Action
from simulation.invariants import (
    ApiCall,
    FinalState,
    check_adopted,
    check_creates,
    check_erasures,
    check_events,
    check_replay,
    check_state,
    check_updates,
    check_walks,
    users_with_failed_events,
)
from simulation.processes import Invocation
from simulation.schedule import START, Schedule
from simulation.stripe_actor import StripeActor
from simulation.stripe_side import API_KEY, AUTHORIZATION, SimulatedStripe
from simulation.walks import WALK, WalkedRun, Walks
from simulation.watch import Violation, Watch
from simulation.worker import UNDO
from stripe_integrations.actions.customers.snapshot import TOKEN_KEY, USER_KEY
from stripe_integrations.config import Settings
from stripe_integrations.context import Context, use
from stripe_integrations.models import KINDS, Card, Customer, Owner, Subscription
from stripe_integrations.models.event import MAX_ATTEMPTS
from stripe_integrations.models.observation import Observation

Json = dict[str, Any]

USER = "USER#u-0"
DAY = 86_400.0


class Scene:
    """A Stripe with a customer of ours, and a table that has it: a test changes one of them."""

    def __init__(self) -> None:
        schedule = Schedule()
        faults = Faults(1, FaultProfile())
        self.stripe = SimulatedStripe(1, schedule, 0.0)
        self.double: StripeDouble = self.stripe.double
        made = self.stripe.act(
            "make",
            "POST",
            "/v1/customers",
            {"email": "a@example.com", "source": "tok_visa", "metadata": {USER_KEY: "u-0"}},
        )
        self.stripe_id: str = made.body["id"]
        self.double.account.events.clear()  # they happened before the deployment
        self.records: list[Json] = []
        self.found: list[Violation] = []
        self.now = START
        self.watch = Watch(self.records, self.double, self.found.append, lambda: self.now)
        deliveries = Deliveries(schedule, self.stripe, None, faults, lambda *_: None)  # type: ignore[arg-type]
        self.final = FinalState(
            watch=self.watch,
            stripe=self.stripe,
            stripe_actor=StripeActor(1, self.stripe, deliveries),
            calls=[ApiCall("create", "u-0", START, START + 1, 201)],
            accepted=set(),
            dead_letters=[],
            bus=None,
            publish_types=["invoice.*"],
            stores_unassigned=False,
            handlers=CustomHandlers(["customer.updated"], None, self.watch, self.found.append),  # type: ignore[arg-type]
            kinds=KINDS,
            poisonous=set(),
        )
        self.write(*self.true_items())
        self.write(("POINTER", {"user_id": {"S": "u-0"}}), pk=f"STRIPE#{self.stripe_id}")

    def true_items(self) -> list[tuple[str, Json]]:
        """The items that hold no violation."""
        customer = self.fetch(f"/v1/customers/{self.stripe_id}", {"expand": ["sources"]})
        methods = self.fetch(f"/v1/customers/{self.stripe_id}/payment_methods", {"type": "card"})
        moment = datetime.fromtimestamp(START, UTC)
        record = Customer(
            USER,
            f"CUSTOMER#{self.stripe_id}",
            user_id="u-0",
            is_active=True,
            created_at=moment,
            modified_at=moment,
            version=1,
            **Customer.values_of(customer),
        )
        cards = Card.from_stripe("u-0", customer, methods["data"], Observation.of_event(0))
        active = {"pk": {"S": USER}, "sk": {"S": "CLAIM"}, "stripe_id": {"S": self.stripe_id}}
        return [
            ("CLAIM", active),
            (record.sk, record.serialize()),
            *((card.sk, card.serialize()) for card in cards),
        ]

    def subscription_items(self) -> list[tuple[str, Json]]:
        params = {"customer": self.stripe_id, "status": "all"}
        listed = self.fetch("/v1/subscriptions", params)["data"]
        observation = Observation.of_event(0)
        records = Subscription.from_stripe("u-0", {"id": self.stripe_id}, listed, observation)
        return [(record.sk, record.serialize()) for record in records]

    def fetch(self, path: str, params: Json) -> Json:
        return self.double.request("GET", path, params, AUTHORIZATION).body

    def write(self, *items: tuple[str, Json | None], pk: str = USER) -> None:
        """Write items in one transaction; None deletes."""
        for sk, image in items:
            change: Json = {"Keys": {"pk": {"S": pk}, "sk": {"S": sk}}}
            if image is not None:
                change["NewImage"] = image
            self.records.append({"dynamodb": change})
        self.watch.check_changes()

    @property
    def customer(self) -> tuple[str, Json]:
        sk = f"CUSTOMER#{self.stripe_id}"
        return sk, dict(self.watch.images[USER, sk])

    @property
    def card(self) -> tuple[str, Json]:
        return next((sk, dict(i)) for (_, sk), i in self.watch.images.items() if "#CARD#" in sk)

    def verdict(self) -> set[str]:
        checks = (
            check_events,
            check_updates,
            check_creates,
            check_erasures,
            check_state,
            check_adopted,
            check_walks,
        )
        violations = [*self.found, *(found for check in checks for found in check(self.final))]
        return {violation.promise for violation in violations}


@pytest.fixture
def scene() -> Any:
    settings = Settings(table_name="customers", api_key=API_KEY)
    with use(Context(settings, clock=lambda: START, random=random.Random(1))):
        yield Scene()


def event(state: str, attempts: int = 1, **more: str) -> Json:
    return {
        "state": {"S": state},
        "attempts": {"N": str(attempts)},
        **{name: {"S": value} for name, value in more.items()},
    }


def invocation() -> Invocation:
    """An invocation without a fault."""
    faults = Faults(1, FaultProfile())
    return Invocation("i", "apply_event", Schedule(), faults, random.Random(1), Counter())


def fail(scene: Scene, attempts: int, seconds: float) -> None:
    scene.write(("EVENT", event("pending", 1)), pk="EVENT#evt_1")
    scene.now += seconds
    scene.write(("EVENT", event("failed", attempts, user_id="u-0")), pk="EVENT#evt_1")


@pytest.mark.parametrize(
    "allow",
    [
        lambda scene: claim(scene, "v", START + 90),  # the create was interrupted, and resumed
        lambda scene: setattr(scene.final.calls[0], "existing", set()),
        lambda scene: scene.final.calls.append(
            ApiCall("create", "u-0", START, START + 1, 201, existing=set())
        ),
        lambda scene: scene.stripe.act(
            "d", "DELETE", f"/v1/customers/{max(scene.final.calls[0].existing)}"
        ),
    ],
    ids=["resumed", "unchecked", "concurrent", "deleted"],
)
def test_create_beside_existing_may_be_right(
    scene: Scene, allow: Callable[[Scene], object]
) -> None:
    create_beside_existing(scene)
    allow(scene)
    if scene.watch.claimed.get("v"):
        scene.double.account.customers[scene.stripe_id]["metadata"][TOKEN_KEY] = "v"
    assert not [found for found in check_creates(scene.final) if "beside" in found.promise]


def test_refusal_for_existing_is_right(scene: Scene) -> None:
    existing = add_existing(scene)
    (call,) = scene.final.calls
    call.existing, call.refused_for = {existing}, (existing,)
    assert list(check_creates(scene.final)) == []


def test_no_violation(scene: Scene) -> None:
    assert scene.verdict() == set()


def test_erased_customer_is_no_violation(scene: Scene) -> None:
    erase(scene)
    assert scene.verdict() == set()


def change_on_stripe(scene: Scene) -> None:
    scene.stripe.act("x", "POST", f"/v1/customers/{scene.stripe_id}", {"name": "Zoe"})


def remove_card_on_stripe(scene: Scene) -> None:
    card = scene.card[0].rpartition("#")[2]
    scene.stripe.act("x", "DELETE", f"/v1/customers/{scene.stripe_id}/sources/{card}")


def subscribe_on_stripe(scene: Scene) -> None:
    product = scene.stripe.act("p", "POST", "/v1/products", {"name": "Tea"}).body["id"]
    price = {
        "product": product,
        "currency": "eur",
        "unit_amount": "1",
        "recurring": {"interval": "month"},
    }
    price_id = scene.stripe.act("q", "POST", "/v1/prices", price).body["id"]
    params = {"customer": scene.stripe_id, "items": [{"price": price_id}]}
    scene.stripe.act("s", "POST", "/v1/subscriptions", params)


def delete_on_stripe(scene: Scene) -> None:
    scene.stripe.act("x", "DELETE", f"/v1/customers/{scene.stripe_id}")


def create_duplicate(scene: Scene) -> None:
    params = {"email": "a@example.com", "metadata": {USER_KEY: "u-0"}}
    scene.stripe.act("y", "POST", "/v1/customers", params)


def write_without_raising_the_version(scene: Scene) -> None:
    sk, image = scene.customer
    scene.write((sk, {**image, "phone": {"S": "1"}}))


def forget_a_request(scene: Scene) -> None:
    sk, image = scene.customer
    scene.write((sk, {**image, "fetch_requests": {"N": "2"}}))
    scene.write((sk, {**image, "fetch_requests": {"N": "1"}, "version": {"N": "2"}}))


def write_under_a_soft_deleted_record(scene: Scene) -> None:
    sk, image = scene.customer
    gone = {**image, "is_active": {"BOOL": False}, "version": {"N": "2"}}
    scene.write((sk, gone), ("CLAIM", None))
    card, card_image = scene.card
    scene.write((card, {**card_image, "name": {"S": "new"}}))


def activate_a_second_customer(scene: Scene) -> None:
    _, image = scene.customer
    scene.write(("CUSTOMER#cus_2", image))


def point_to_another_user(scene: Scene) -> None:
    scene.write(("POINTER", {"user_id": {"S": "u-1"}}), pk=f"STRIPE#{scene.stripe_id}")


def forget_the_metadata(scene: Scene) -> None:
    adopted = {"user_id": {"S": "u-0"}, "token": {"S": "stripe-customers/1-a"}}
    scene.write(("POINTER", adopted), pk=f"STRIPE#{scene.stripe_id}")
    scene.final.stripe_actor.existing.append(scene.stripe_id)


def release(scene: Scene, *, keeps: str = "") -> None:
    """Delete what is stored of the customer, except items whose sort key has a text."""
    scene.now += 10
    scene.watch.releasing["u-0"] += 1
    keys = [(pk, sk) for pk, sk in scene.watch.images if not keeps or keeps not in sk]
    for partition in (f"STRIPE#{scene.stripe_id}", USER):
        scene.write(*((sk, None) for pk, sk in keys if pk == partition), pk=partition)
    scene.watch.releasing["u-0"] -= 1
    scene.final.calls.append(ApiCall("release", "u-0", scene.now, scene.now + 2, 204))


def leave_the_metadata_of_a_release(scene: Scene) -> None:
    release(scene)


def leave_the_pointer_of_a_release(scene: Scene) -> None:
    release(scene, keeps="POINTER")


def leave_the_claim_of_a_release(scene: Scene) -> None:
    release(scene, keeps="CLAIM")


def leave_a_card_of_a_release(scene: Scene) -> None:
    release(scene, keeps="CARD")


def store_no_unassigned_customer(scene: Scene) -> None:
    scene.final.stores_unassigned = True
    scene.stripe.act("y", "POST", "/v1/customers", {"email": "a@example.com"})


def unassigned(scene: Scene, **more: Json) -> tuple[str, Json]:
    """The record of a customer that no user has, as it is stored."""
    scene.final.stores_unassigned = True
    made = scene.stripe.act("y", "POST", "/v1/customers", {"name": "Ada", "email": "a@example.com"})
    sk = f"CUSTOMER#{made.body['id']}"
    scene.double.account.events.clear()
    moment = datetime.fromtimestamp(START, UTC)
    record = Customer.new(Owner(None, made.body["id"]), moment)
    for name, value in Customer.values_of(made.body).items():
        setattr(record, name, value)
    image: Json = {**record.serialize(), "version": {"N": "1"}, **more}
    pointer: Json = {"record_type": {"S": "Pointer"}}
    scene.write(("POINTER", pointer), pk=f"STRIPE#{made.body['id']}")
    scene.write((sk, image), pk=record.pk)
    return sk, image


def test_unassigned_customer_is_no_violation(scene: Scene) -> None:
    unassigned(scene)
    assert scene.verdict() == set()


def store_an_older_state_of_an_unassigned_customer(scene: Scene) -> None:
    unassigned(scene, name={"S": "Eve"})


def store_the_customer_of_a_user_as_unassigned(scene: Scene) -> None:
    scene.final.stores_unassigned = True
    sk, image = scene.customer
    scene.write((sk, image), pk=f"UNASSIGNED#{scene.stripe_id}")


def delete_an_unassigned_customer(scene: Scene) -> None:
    sk, _ = unassigned(scene)
    scene.write((sk, None), pk=f"UNASSIGNED#{sk.partition('#')[2]}")


def adopt_for_a_user_that_the_record_does_not_name(scene: Scene) -> None:
    sk, image = unassigned(scene)
    stripe_id = sk.partition("#")[2]
    scene.write(("POINTER", {"user_id": {"S": "u-7"}}), pk=f"STRIPE#{stripe_id}")
    claim: Json = {"stripe_id": {"S": stripe_id}}
    scene.write(("CLAIM", claim), (sk, image), pk="USER#u-7")
    scene.write((sk, None), pk=f"UNASSIGNED#{stripe_id}")


def release_half(scene: Scene) -> None:
    scene.watch.releasing["u-0"] += 1
    scene.write((scene.card[0], None))


def delete_without_a_release(scene: Scene) -> None:
    scene.write((scene.customer[0], None), ("CLAIM", None))


def refuse_the_next_adoption(scene: Scene) -> None:
    name = "adoption 0 at the end"
    scene.final.calls.append(ApiCall("adopt", "u-100", START, START + 1, 409, name))


def add_existing(scene: Scene, token: str = "") -> str:
    """Let another program create a customer with the e-mail of ours; its id."""
    params = {"email": "a@example.com", "metadata": {TOKEN_KEY: token} if token else {}}
    stripe_id: str = scene.stripe.act("f", "POST", "/v1/customers", params).body["id"]
    scene.final.stripe_actor.foreign.add(stripe_id)
    return stripe_id


def claim(scene: Scene, token: str, moment: float, **more: str) -> None:
    """Store a claim of the user."""
    scene.now = moment
    image = {name: {"S": value} for name, value in {"token": token, **more}.items()}
    scene.write(("CLAIM", image))
    scene.write(*scene.true_items()[:1])


def create_beside_existing(scene: Scene) -> None:
    existing = add_existing(scene)
    scene.final.calls[0].existing = {existing}
    claim(scene, "t", START + 0.5)
    metadata = scene.double.account.customers[scene.stripe_id]["metadata"]
    metadata[TOKEN_KEY] = "t"


def create_beside_existing_with_new_token(scene: Scene) -> None:
    create_beside_existing(scene)
    claim(scene, "u", START + 90, former_tokens='["t"]')
    scene.double.account.customers[scene.stripe_id]["metadata"][TOKEN_KEY] = "u"


def refuse_for_own_customer(scene: Scene) -> None:
    scene.final.calls[0].refused_for = (scene.stripe_id,)


def refuse_for_customer_of_another_stack(scene: Scene) -> None:
    scene.final.calls[0].refused_for = (add_existing(scene, "a token of another stack"),)


def lose_the_customer(scene: Scene) -> None:
    sk, image = scene.customer
    gone = {**image, "is_active": {"BOOL": False}, "version": {"N": "2"}}
    scene.write((sk, gone), ("CLAIM", None))


def update_twice(scene: Scene) -> None:
    scene.final.calls.append(ApiCall("api_update", "u-0", START, START + 1, 200, "u00"))
    scene.stripe.updates["u00"] = [("cus_1/key-1", 200), ("cus_1/key-2", 200)]


def erase(scene: Scene) -> None:
    """Erase the customer as the product does."""
    customers = json.dumps({scene.stripe_id: []})
    item = {"record_type": {"S": "Erasure"}, "customers": {"S": customers}}
    scene.write(("ERASE", item), pk="ERASE#1")
    scene.write((scene.customer[0], None), (scene.card[0], None), ("CLAIM", None))
    pk = f"STRIPE#{scene.stripe_id}"
    scene.write(("POINTER", {"pk": {"S": pk}, "erased_at": {"N": "1"}}), pk=pk)
    scene.write(("ERASE", None), pk="ERASE#1")
    scene.final.calls.append(ApiCall("erase", "u-0", START + 2, START + 3, 200))


def store_an_erased_customer(scene: Scene) -> None:
    kept = scene.customer
    erase(scene)
    scene.write(kept)


def leave_a_claim_of_an_erased_customer(scene: Scene) -> None:
    claim = scene.watch.images[USER, "CLAIM"]
    erase(scene)
    scene.write(("CLAIM", claim))


def keep_the_payload_of_an_erased_customer(scene: Scene) -> None:
    erase(scene)
    stored = event("ignored", customer_id=scene.stripe_id, webhook_message="x", reason="erased")
    scene.write(("EVENT", stored), pk="EVENT#evt_1")


def erase_without_a_tombstone(scene: Scene) -> None:
    erase(scene)
    scene.watch.erased.clear()
    scene.write(("POINTER", None), pk=f"STRIPE#{scene.stripe_id}")


def give_an_erased_customer_to_a_user(scene: Scene) -> None:
    erase(scene)
    point_to_another_user(scene)


def update_nothing(scene: Scene) -> None:
    scene.final.calls.append(ApiCall("api_update", "u-0", START, START + 1, 200, "u00"))
    scene.stripe.updates["u00"] = [("cus_1/key-1", 500)]


def restore_removed_card(scene: Scene) -> None:
    sk, image = scene.card
    scene.write((sk, {**image, "removed_at": {"S": "now"}}))
    remove_card_on_stripe(scene)
    scene.write((sk, image))


def apply_the_other_mode(scene: Scene) -> None:
    sk, image = scene.customer
    scene.write((sk, {**image, "email": {"S": "foreign@example.com"}, "version": {"N": "2"}}))


def lose_an_accepted_event(scene: Scene) -> None:
    scene.final.accepted.add("evt_1")


def leave_an_event_pending(scene: Scene) -> None:
    scene.write(("EVENT", event("pending")), pk="EVENT#evt_1")


def ignore_an_event_without_a_reason(scene: Scene) -> None:
    scene.write(("EVENT", event("ignored")), pk="EVENT#evt_1")


def fail_an_event_in_silence(scene: Scene) -> None:
    scene.write(("EVENT", event("failed", reason="poison")), pk="EVENT#evt_1")


def fail_an_event_after_one_attempt(scene: Scene) -> None:
    scene.final.dead_letters.append("evt_1")
    fail(scene, attempts=1, seconds=3 * DAY)


def fail_an_event_at_once(scene: Scene) -> None:
    scene.final.dead_letters.append("evt_1")
    fail(scene, attempts=MAX_ATTEMPTS, seconds=DAY)


def forget_the_user_of_an_event(scene: Scene) -> None:
    applied = event("applied", kind="customer.created", customer_id=scene.stripe_id)
    scene.write(("EVENT", applied), pk="EVENT#evt_1")


def forget_a_handler(scene: Scene) -> None:
    scene.write(("EVENT", event("applied", kind="customer.updated")), pk="EVENT#evt_1")


def unfinish_an_event(scene: Scene) -> None:
    scene.write(("EVENT", event("applied")), ("EVENT", event("pending")), pk="EVENT#evt_1")


def forget_an_attempt(scene: Scene) -> None:
    again = {**event("pending"), "attempts": {"N": "0"}}
    scene.write(("EVENT", event("pending")), ("EVENT", again), pk="EVENT#evt_1")


def publish_nothing(scene: Scene) -> None:
    scene.final.bus = SimulatedService("bus", None)  # type: ignore[arg-type]
    change_on_stripe(scene)
    stripe_id = next(iter(scene.double.account.events))
    scene.write(("EVENT", event("ignored", reason="older", user_id="u-0")), pk=f"EVENT#{stripe_id}")


def attempt_without_publishing(scene: Scene, *, has_user: bool) -> None:
    """Apply an event, before its user loses the customer or after."""
    publish_nothing(scene)
    (stripe_id,) = scene.watch.events
    ids: Any = {"user_id": "u-0", "customer_id": scene.stripe_id}
    images = (
        event("pending", **ids),
        event("pending", claimed_at="2027", **ids),
        event("applied", claimed_at="2027", **ids),
    )
    if not has_user:
        scene.write(("POINTER", {}), pk=f"STRIPE#{scene.stripe_id}")
    for image in images:
        scene.write(("EVENT", image), pk=f"EVENT#{stripe_id}")
    if has_user:
        scene.write(("POINTER", {}), pk=f"STRIPE#{scene.stripe_id}")


def test_event_of_a_customer_without_user_need_not_be_published(scene: Scene) -> None:
    attempt_without_publishing(scene, has_user=False)
    assert "an event of our customers is published" not in scene.verdict()


def publish_nothing_before_the_user_loses_the_customer(scene: Scene) -> None:
    attempt_without_publishing(scene, has_user=True)


def publish_twice(scene: Scene) -> None:
    publish_nothing(scene)
    (stripe_id,) = scene.watch.events
    publish(scene, stripe_id)
    publish(scene, stripe_id)


def publish(scene: Scene, stripe_id: str, **changes: Any) -> None:
    assert scene.final.bus is not None
    detail = {
        "event_id": stripe_id,
        "type": "customer.updated",
        "created": int(START),
        "customer_id": scene.stripe_id,
        "user_id": "u-0",
        "livemode": False,
        "effect": "older",
        "customer_is_active": True,
        **changes,
    }
    scene.final.bus.messages.append(json.dumps(detail))
    scene.final.bus.senders.append(invocation())
    scene.final.bus.times.append(START)


def emit(scene: Scene, event_type: str, customer: str | None, **more: str) -> str:
    """Let Stripe send an event that changes no record, store it as ended, and return its id."""
    scene.final.bus = SimulatedService("bus", None)  # type: ignore[arg-type]
    subject = {"id": "in_1", "object": "invoice", "customer": customer}
    stripe_id = scene.double.account.emit(event_type, subject)
    ended = event("ignored", attempts=1, reason="no change", **more)
    scene.write(("EVENT", ended), pk=f"EVENT#{stripe_id}")
    return stripe_id


def publish_no_invoice(scene: Scene) -> None:
    emit(scene, "invoice.paid", scene.stripe_id, customer_id=scene.stripe_id, user_id="u-0")


def publish_no_invoice_without_customer(scene: Scene) -> None:
    emit(scene, "invoice.paid", None)


def publish_another_type(scene: Scene) -> None:
    publish(scene, emit(scene, "invoiceitem.created", scene.stripe_id), type="invoiceitem.created")


def publish_a_foreign_event(scene: Scene) -> None:
    scene.final.stripe_actor.foreign.add("cus_foreign")
    stripe_id = emit(scene, "invoice.paid", "cus_foreign", customer_id="cus_foreign")
    publish(scene, stripe_id, type="invoice.paid", customer_id="cus_foreign")


def publish_the_other_mode(scene: Scene) -> None:
    scene.final.bus = SimulatedService("bus", None)  # type: ignore[arg-type]
    publish(scene, "evt_live")


def publish_personal_data(scene: Scene) -> None:
    publish(scene, emit(scene, "invoice.paid", scene.stripe_id), email="a@example.com")


def sweep_no_invoice(scene: Scene) -> None:
    scene.double.account.emit("invoice.paid", {"object": "invoice", "customer": scene.stripe_id})


def lose_a_replay(scene: Scene) -> None:
    publish_twice(scene)
    (stripe_id,) = scene.watch.events
    scene.now = START + 60
    replayed = event("applied", user_id="u-0", replayed_at="now")
    scene.write(("EVENT", replayed), pk=f"EVENT#{stripe_id}")


def handle_twice(scene: Scene) -> None:
    scene.final.handlers.handled["evt_1"] = [invocation(), invocation()]


def call_for_a_foreign_customer(scene: Scene) -> None:
    scene.final.stripe_actor.foreign.add("cus_foreign")
    scene.stripe.calls.append("/v1/customers/cus_foreign {}")


def store_a_foreign_payload(scene: Scene) -> None:
    scene.final.stripe_actor.foreign.add("cus_foreign")
    ended = event("ignored", reason="r", customer_id="cus_foreign", webhook_message="{}")
    scene.write(("EVENT", ended), pk="EVENT#evt_1")


def soft_delete_as_deleted(scene: Scene) -> None:
    """Delete the customer on Stripe, and soft-delete its record without ending its children."""
    subscribe_on_stripe(scene)
    scene.write(*scene.subscription_items())
    delete_on_stripe(scene)
    sk, image = scene.customer
    gone = {"is_active": {"BOOL": False}, "deleted": {"BOOL": True}, "version": {"N": "2"}}
    scene.write((sk, {**image, **gone}), ("CLAIM", None))


def change_after_a_deletion(scene: Scene) -> None:
    soft_delete_as_deleted(scene)
    sk, image = scene.customer
    scene.write((sk, {**image, "name": {"S": "new"}, "version": {"N": "3"}}))


def store_a_late_record_as_new(scene: Scene) -> None:
    """Store the record of an hour-old customer as if nothing could be attached to it yet."""
    sk, image = scene.customer
    scene.now = scene.double.account.customers[scene.stripe_id]["created"] + 3600
    scene.watch.images.pop((USER, sk))
    scene.write((sk, {**image, "listings": {"S": "{}"}}))


def walk(scene: Scene, **state: Any) -> WalkedRun:
    """Add a run that is over; its mapping gives a customer of before the deployment to u-1."""
    actor = scene.final.stripe_actor
    schedule, ignore = Schedule(), lambda *_: None
    scene.final.walks = Walks(
        schedule=schedule,
        fleet=None,  # type: ignore[arg-type]
        actor=actor,
        watch=scene.watch,
        check_outcome=ignore,
        note_change=ignore,
    )
    actor.prior.append(scene.stripe.act("y", "POST", "/v1/customers", {}).body["id"])
    scene.double.account.events.clear()
    run = WalkedRun(Action("walk0", 0, "walk", 0), [("u-1", actor.prior[0])], {*actor.prior})
    run.is_finished = run.is_over = True
    for name, value in state.items():
        setattr(run, name, value)
    scene.final.walks.runs.append(run)
    scene.write(("RUN", {"created_before": {"N": str(int(START) + 60)}}), pk=f"RUN#{run.run_id}")
    return run


def store_walked(scene: Scene, run: WalkedRun, **more: Json) -> None:
    """Store the customer of a run's mapping as the run does, without any card."""
    (user_id, stripe_id) = run.rows[0]
    customer = scene.fetch(f"/v1/customers/{stripe_id}", {})
    record = Customer.new(Owner(user_id, stripe_id), datetime.fromtimestamp(START, UTC))
    for name, value in {**Customer.values_of(customer), "run_id": run.run_id}.items():
        setattr(record, name, value)
    image: Json = {**record.serialize(), "version": {"N": "1"}, **more}
    scene.watch.writer = WALK
    pointer = {"user_id": {"S": user_id}, "run_id": {"S": run.run_id}, "token": {"S": "t"}}
    scene.write(("POINTER", pointer), pk=f"STRIPE#{stripe_id}")
    claim = {"stripe_id": {"S": stripe_id}, "token": {"S": "t"}}
    scene.write(("CLAIM", claim), (record.sk, image), pk=record.pk)


def test_walked_customer_is_no_violation(scene: Scene) -> None:
    run = walk(scene)
    add = f"/v1/customers/{run.rows[0][1]}/sources"
    scene.stripe.act("c", "POST", add, {"source": "tok_visa"})  # was never listed
    scene.double.account.events.clear()
    store_walked(scene, run)
    assert scene.verdict() == set()


def test_reported_customer_is_no_violation(scene: Scene) -> None:
    run = walk(scene)
    line = json.dumps({"stripe_id": run.rows[0][1], "result": "conflict", "reason": "another"})
    assert scene.final.walks
    scene.final.walks.bucket.texts[f"runs/{run.run_id}/customers-1/0.jsonl"] = f"{line}\n"
    assert scene.verdict() == set()


def miss_a_customer_in_a_run(scene: Scene) -> None:
    walk(scene)


def miss_an_unassigned_customer_in_a_run(scene: Scene) -> None:
    scene.final.stores_unassigned = True
    walk(scene, rows=[])


def store_an_older_state_in_a_run(scene: Scene) -> None:
    store_walked(scene, walk(scene), name={"S": "Eve"})


def miss_a_subscription_in_a_run(scene: Scene) -> None:
    run = walk(scene)
    card = f"/v1/customers/{run.rows[0][1]}"
    scene.stripe.act("c", "POST", card, {"source": "tok_visa"})
    ours, scene.stripe_id = scene.stripe_id, run.rows[0][1]
    subscribe_on_stripe(scene)
    scene.stripe_id = ours
    scene.double.account.events.clear()
    store_walked(scene, run)


def stop_a_run_for_good(scene: Scene) -> None:
    store_walked(scene, walk(scene, is_over=False))


def change_stripe_in_a_run(scene: Scene) -> None:
    run = walk(scene)
    store_walked(scene, run)
    scene.stripe.writes.append((WALK, "walk0-1", f"/v1/customers/{run.rows[0][1]}"))


def write_metadata(scene: Scene, run: WalkedRun, **pointer: Json) -> WalkedRun:
    """Add a run that has written the metadata of the customer that another run has assigned."""
    assert scene.final.walks
    later = WalkedRun(Action("metadata0", 0, "metadata", 0), [], set())
    later.is_finished = later.is_over = True
    scene.final.walks.metadata_runs.append(later)
    before = {"created_before": {"N": str(int(START) + 60)}}
    scene.write(("RUN", before), pk=f"RUN#{later.run_id}")
    (user_id, stripe_id) = run.rows[0]
    later.due = {stripe_id: "t"}
    metadata = {USER_KEY: user_id, TOKEN_KEY: "t"}
    scene.stripe.act("m", "POST", f"/v1/customers/{stripe_id}", {"metadata": metadata})
    scene.double.account.events.clear()
    scene.stripe.writes.append((WALK, "metadata0-1", f"/v1/customers/{stripe_id}"))
    store_walked(scene, run)
    assigned = {"user_id": {"S": user_id}, "run_id": {"S": run.run_id}, "token": {"S": "t"}}
    scene.write(("POINTER", {**assigned, **pointer}), pk=f"STRIPE#{stripe_id}")
    return later


def test_metadata_written_by_a_run_is_no_violation(scene: Scene) -> None:
    write_metadata(scene, walk(scene), has_metadata={"BOOL": True})
    assert scene.verdict() == set()


def leave_metadata_unnoted(scene: Scene) -> None:
    write_metadata(scene, walk(scene))


def complete_no_metadata_run(scene: Scene) -> None:
    write_metadata(scene, walk(scene), has_metadata={"BOOL": True}).is_over = False


def leave_the_metadata_of_an_undone_run(scene: Scene) -> None:
    run = walk(scene)
    write_metadata(scene, run, has_metadata={"BOOL": True})
    scene.watch.writer, scene.watch.undone = UNDO, {run.run_id}
    scene.write(("POINTER", None), pk=f"STRIPE#{run.rows[0][1]}")


def leave_the_pointer_of_an_undone_run(scene: Scene) -> None:
    store_walked(scene, walk(scene, is_undone=True))


def give_the_customer_to_another_user_in_a_run(scene: Scene) -> None:
    scene.watch.writer = WALK
    point_to_another_user(scene)


def overwrite_a_claim_in_a_run(scene: Scene) -> None:
    scene.watch.writer = WALK
    scene.write(("CLAIM", {"stripe_id": {"S": "cus_2"}}))


def undo_what_no_run_has_assigned(scene: Scene) -> None:
    scene.watch.writer = UNDO
    scene.write(("POINTER", None), pk=f"STRIPE#{scene.stripe_id}")


def accept_a_forged_event(scene: Scene) -> None:
    scene.final.stripe_actor.crafted["evt_1"] = "forged"
    scene.final.stripe_actor.statuses["evt_1"] = [200]


@pytest.mark.parametrize(
    ("plant", "promise"),
    [
        (change_on_stripe, "a record equals Stripe's"),
        (change_on_stripe, "an event that Stripe lists is stored"),
        (remove_card_on_stripe, "a record equals Stripe's"),
        (subscribe_on_stripe, "a record equals Stripe's"),
        (delete_on_stripe, "a customer that Stripe deleted is not active"),
        (create_duplicate, "a customer of ours on Stripe has a record"),
        (create_duplicate, "Stripe holds no duplicate"),
        (write_without_raising_the_version, "the version is raised by every write"),
        (forget_a_request, "a counted request stays counted"),
        (write_under_a_soft_deleted_record, "a soft-deleted record is frozen"),
        (activate_a_second_customer, "a user has one active customer"),
        (point_to_another_user, "a customer has one owner"),
        (forget_the_metadata, "the metadata of a customer names its owner, if any"),
        (leave_the_metadata_of_a_release, "the metadata of a customer names its owner, if any"),
        (leave_the_pointer_of_a_release, "a released customer has no owner"),
        (leave_the_claim_of_a_release, "a user whose customer was released has no claim"),
        (leave_a_card_of_a_release, "a released customer leaves no records"),
        (miss_a_customer_in_a_run, "a mapped customer is its user's"),
        (miss_a_customer_in_a_run, "a run stores every customer"),
        (miss_an_unassigned_customer_in_a_run, "a run stores every customer"),
        (store_an_older_state_in_a_run, "a record equals Stripe's"),
        (miss_a_subscription_in_a_run, "a record equals Stripe's"),
        (stop_a_run_for_good, "a run is completed"),
        (change_stripe_in_a_run, "a run changes nothing on Stripe"),
        (leave_the_pointer_of_an_undone_run, "an undone run has assigned nothing"),
        (leave_metadata_unnoted, "the metadata of an assigned customer is written, or reported"),
        (leave_metadata_unnoted, "the metadata of a customer names its owner, if any"),
        (complete_no_metadata_run, "a run is completed"),
        (
            leave_the_metadata_of_an_undone_run,
            "the metadata of a customer names its owner, if any",
        ),
        (give_the_customer_to_another_user_in_a_run, "no user loses a customer by a run"),
        (overwrite_a_claim_in_a_run, "no user loses a customer by a run"),
        (undo_what_no_run_has_assigned, "only what a run has assigned is undone"),
        (store_no_unassigned_customer, "a customer that no user has is stored"),
        (store_an_older_state_of_an_unassigned_customer, "a record equals Stripe's"),
        (store_the_customer_of_a_user_as_unassigned, "an unassigned customer is no user's"),
        (delete_an_unassigned_customer, "no record is deleted"),
        (
            adopt_for_a_user_that_the_record_does_not_name,
            "a customer is adopted by the user that its record names",
        ),
        (release_half, "no record is deleted"),
        (delete_without_a_release, "no record is deleted"),
        (refuse_the_next_adoption, "a released customer can be adopted"),
        (lose_the_customer, "a created customer stays"),
        (create_beside_existing, "no customer is created beside an existing one"),
        (create_beside_existing_with_new_token, "no customer is created beside an existing one"),
        (refuse_for_own_customer, "a create is refused for customers of others alone"),
        (refuse_for_customer_of_another_stack, "a create is refused for customers of others alone"),
        (update_twice, "an update is made once"),
        (update_nothing, "a successful update was made on Stripe"),
        (store_an_erased_customer, "nothing of an erased customer is stored"),
        (leave_a_claim_of_an_erased_customer, "nothing of an erased customer is stored"),
        (keep_the_payload_of_an_erased_customer, "nothing of an erased customer is stored"),
        (erase_without_a_tombstone, "an erased customer has a tombstone"),
        (give_an_erased_customer_to_a_user, "a tombstone stays"),
        (restore_removed_card, "a removed object is not restored"),
        (apply_the_other_mode, "modes and accounts never mix"),
        (lose_an_accepted_event, "an accepted event is stored"),
        (leave_an_event_pending, "every event is finished"),
        (ignore_an_event_without_a_reason, "an ignored event has a reason"),
        (fail_an_event_in_silence, "a failed event is a dead letter"),
        (fail_an_event_after_one_attempt, "an event fails only after all attempts"),
        (fail_an_event_at_once, "an event fails only after all attempts"),
        (forget_the_user_of_an_event, "an applied event has the user of its customer"),
        (forget_a_handler, "an applied event was handled"),
        (unfinish_an_event, "a finished event stays finished"),
        (forget_an_attempt, "an attempt that was counted stays counted"),
        (publish_nothing, "an event of our customers is published"),
        (
            publish_nothing_before_the_user_loses_the_customer,
            "an event of our customers is published",
        ),
        (publish_twice, "an event is published once"),
        (publish_no_invoice, "an event of our customers is published"),
        (publish_no_invoice_without_customer, "an event of our customers is published"),
        (publish_another_type, "no event of another type is published"),
        (publish_a_foreign_event, "no event of a foreign customer is published"),
        (publish_the_other_mode, "modes and accounts never mix"),
        (publish_personal_data, "a message fits its schema"),
        (sweep_no_invoice, "an event that Stripe lists is stored"),
        (lose_a_replay, "a replayed event is published again"),
        (handle_twice, "an event is handled once"),
        (call_for_a_foreign_customer, "no call to Stripe is made for a foreign customer"),
        (store_a_foreign_payload, "a foreign event leaves no payload"),
        (soft_delete_as_deleted, "a deleted customer has no default"),
        (soft_delete_as_deleted, "a deleted customer has nothing attached"),
        (soft_delete_as_deleted, "a deleted customer's subscriptions have ended"),
        (change_after_a_deletion, "a soft-deleted record is frozen"),
        (store_a_late_record_as_new, "a record that is stored late is fetched"),
        (accept_a_forged_event, "a forged event is refused"),
    ],
)
def test_finds_violation(scene: Scene, plant: Callable[[Scene], None], promise: str) -> None:
    plant(scene)
    assert promise in scene.verdict()


def test_event_may_fail_after_days(scene: Scene) -> None:
    scene.final.dead_letters.append("evt_1")
    fail(scene, attempts=MAX_ATTEMPTS, seconds=2 * DAY)
    assert scene.verdict() == set()


def test_unprocessable_event_may_fail_at_once(scene: Scene) -> None:
    scene.final.dead_letters.append("evt_1 evt_2")
    scene.final.poisonous.add("EVENT#evt_1")
    fail(scene, attempts=1, seconds=0)
    assert scene.verdict() == set()
    scene.final.poisonous.clear()
    scene.final.handlers.refused.add("evt_1")
    assert scene.verdict() == set()


def test_replay_resets_attempts(scene: Scene) -> None:
    scene.final.dead_letters.append("evt_1")
    fail(scene, attempts=MAX_ATTEMPTS, seconds=2 * DAY)
    scene.write(("EVENT", event("pending", 0, replayed_at="now")), pk="EVENT#evt_1")
    scene.write(("EVENT", event("failed", 1, replayed_at="now")), pk="EVENT#evt_1")
    assert scene.verdict() == {"an event fails only after all attempts"}


def test_user_with_failed_event_is_exempt_until_replay(scene: Scene) -> None:
    fail(scene, attempts=1, seconds=0)
    change_on_stripe(scene)
    skipped_users = users_with_failed_events(scene.final)
    assert skipped_users == {"u-0"}
    assert not list(check_state(scene.final, skipped_users))
    assert list(check_state(scene.final))
    assert list(check_replay(scene.final))
