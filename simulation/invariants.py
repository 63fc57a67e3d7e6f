"""Invariants of the final state: the records equal Stripe's objects, and no event is lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from http import HTTPStatus
from math import inf
from typing import Any

from local.stripe_double.double import StripeDouble
from simulation.aws import SimulatedService
from simulation.custom_handlers import CustomHandlers
from simulation.processes import CLOCK_SKEW_SECONDS, Invocation
from simulation.stripe_actor import StripeActor
from simulation.stripe_side import AUTHORIZATION, SimulatedStripe
from simulation.walks import WALKING, WalkedRun, Walks
from simulation.watch import ENDED, Violation, Watch, text
from simulation.worker import UNDO
from stripe_integrations.actions.customers.snapshot import TOKEN_KEY, USER_KEY
from stripe_integrations.actions.events.event_types import CUSTOMER_EVENT_TYPES
from stripe_integrations.models import KINDS, Card, Customer, Owner, Subscription
from stripe_integrations.models.child import Child
from stripe_integrations.models.entitlement import Entitlement
from stripe_integrations.models.event import MAX_ATTEMPTS
from stripe_integrations.models.fields import fields_of
from stripe_integrations.models.observation import Observation
from stripe_integrations.models.payment_method import PaymentMethod
from stripe_integrations.models.tax_id import TaxId
from tools.published_event import schema_errors

Json = dict[str, Any]

_MIN_RETRY_SECONDS = 2 * 86_400.0
_ASSIGNING = ("create", "refused", "adopt")
"""The calls that store a claim of a user."""
_ANY_TIME = Observation.of_event(0)


@dataclass
class ApiCall:
    """One call of the backend to the HTTP API.

    Parameters
    ----------
    kind : str
        ``create``, ``adopt``, ``get``, ``api_update``, ``sync``, ``soft_delete``, ``release``,
        ``refused`` or ``erase``.
    user_id : str
        The user that it is about; empty for the erasure of one customer, whoever has it.
    begun, ended : float
        Unix times; ``ended`` is infinite while there is no response, and where the schedule has to
        complete an erasure.
    status : int
        HTTP status of the response.
    name : str
        The name of the invocation.
    existing : set of str
        Of a create that checks: the customers on Stripe with its e-mail, when it began, that were
        no user's of any deployment.
    refused_for : tuple of str
        Of a create that was refused for such customers: those that the response names.
    """

    kind: str
    user_id: str
    begun: float
    ended: float = inf
    status: int = 0
    name: str = ""
    existing: Set[str] = frozenset()
    refused_for: tuple[str, ...] = ()


@dataclass
class FinalState:
    """Everything that the invariants are checked on.

    Parameters
    ----------
    watch : Watch
        The items of the table.
    stripe : SimulatedStripe
        The Stripe account.
    stripe_actor : StripeActor
        The crafted events and the foreign customers.
    dead_letters : list of str
        The messages that the queue received.
    bus : SimulatedService or None
        The event bus, if the deployment has one.
    publish_types : sequence of str
        Patterns of the types of event that are published though they change no record.
    stores_unassigned : bool
        Whether the deployment stores the customers that no user has.
    handlers : CustomHandlers
        The custom event handlers and the events that they handled.
    kinds : sequence of type
        The kinds of child records that the deployment stores.
    poisonous : set of str
        Partition keys of events that kill every process that attempts them.
    calls : list of ApiCall
        The calls of the backend.
    accepted : set of str
        Ids of events for which the webhook returned 2xx.
    walks : Walks, optional
        The runs through the account.
    differences : dict
        What the verification at the end of a history has found, by the id of the object.
    """

    watch: Watch
    stripe: SimulatedStripe
    stripe_actor: StripeActor
    dead_letters: list[str]
    bus: SimulatedService | None
    publish_types: Sequence[str]
    stores_unassigned: bool
    handlers: CustomHandlers
    kinds: Sequence[type[Child]]
    poisonous: set[str]
    calls: list[ApiCall] = field(default_factory=list)
    accepted: set[str] = field(default_factory=set)
    walks: Walks | None = None
    differences: dict[str, str] = field(default_factory=dict)

    @property
    def double(self) -> StripeDouble:
        """The double of Stripe."""
        return self.stripe.double


def check_events(final: FinalState) -> Iterator[Violation]:
    """Check that each accepted event is stored, and applied, ignored or failed with its reason."""
    events = final.watch.events
    for stripe_id in sorted(final.accepted - set(events)):
        yield Violation("an accepted event is stored", stripe_id)
    letters = "\n".join(final.dead_letters)
    for stripe_id, event in events.items():
        state, kind = text(event, "state"), text(event, "kind")
        detail = f"{kind} {stripe_id} ({text(event, 'last_error') or text(event, 'reason')})"
        if state == "ignored" and not text(event, "reason"):
            yield Violation("an ignored event has a reason", detail)
        if state == "failed" and stripe_id not in letters:
            yield Violation("a failed event is a dead letter", detail)
        if state == "applied" and _lacks_user(final, stripe_id, event):
            yield Violation("an applied event has the user of its customer", detail)
        has_handler = final.handlers.has_handler_for(kind or "")
        if has_handler and state == "applied" and stripe_id not in final.handlers.handled:
            yield Violation("an applied event was handled", detail)
        if state not in ("applied", "ignored", "failed"):
            yield Violation("every event is finished", f"{state}: {detail}")
    yield from _check_foreign(final)
    yield from _check_published(final)
    yield from _check_messages(final)
    yield from _check_side_effects_once(final)
    yield from _check_recovered(final)
    yield from _check_failures(final)
    yield from _check_crafted(final)


def _lacks_user(final: FinalState, stripe_id: str, event: Json) -> bool:
    """Return whether an event of a user's customer ended without the user's id.

    The customer may have been no user's then; or unknown, which the event's reason says.
    """
    if event.keys() & {"user_id", "reason"} or stripe_id in final.watch.unassigned:
        return False
    return "user_id" in _pointer(final, str(text(event, "customer_id")))


def check_erasures(final: FinalState) -> Iterator[Violation]:
    """Check that erased customers have a tombstone, and nothing else but ids."""
    watch, promise = final.watch, "nothing of an erased customer is stored"
    for stripe_id in sorted(watch.to_be_erased.keys() - watch.erased - watch.kept):
        yield Violation("an erased customer has a tombstone", stripe_id)
    for (pk, sk), image in watch.images.items():
        is_claim = sk == "CLAIM" and text(image, "stripe_id") in watch.erased
        if is_claim or (sk.startswith("CUSTOMER#") and sk.split("#")[1] in watch.erased):
            yield Violation(promise, f"{pk} {sk}")
        if sk == "EVENT" and text(image, "customer_id") in watch.erased:
            left = image.keys() & {"webhook_message", "user_id", "request"}
            if left or text(image, "state") not in ("applied", "ignored"):
                yield Violation(promise, f"{pk} {text(image, 'state')}: {', '.join(sorted(left))}")
    for stripe_id in sorted(watch.erased):
        if "user_id" in _pointer(final, stripe_id):
            yield Violation("a tombstone stays", stripe_id)


def check_updates(final: FinalState) -> Iterator[Violation]:
    """Check that an update is sent to Stripe with one key, and that a successful one was made."""
    for call in final.calls:
        if call.kind != "api_update":
            continue
        sent = final.stripe.updates[call.name]
        keys = {key for key, _ in sent}
        if len(keys) > 1:
            yield Violation("an update is made once", f"{call.name}: {', '.join(sorted(keys))}")
        if call.status == 200 and all(status != 200 for _, status in sent):
            yield Violation("a successful update was made on Stripe", call.name)


def check_creates(final: FinalState) -> Iterator[Violation]:
    """Check that creates that check are refused beside existing customers, and only then.

    What counts is the call that stored the claim: a create that was interrupted is resumed.
    """
    account, actor = final.double.account, final.stripe_actor
    creates = [call for call in final.calls if call.kind in ("create", "refused")]
    gone = {stripe_id for stripe_id in account.customers if "user_id" in _pointer(final, stripe_id)}
    # Perhaps before the call listed the customers.
    gone |= account.deleted_customers | final.watch.erased
    for stripe_id in account.customers.keys() - actor.foreign - {*actor.existing, *actor.prior}:
        metadata = account.customers[stripe_id]["metadata"]
        claimed = final.watch.claimed.get(metadata.get(TOKEN_KEY), inf)
        of_claim = [
            call.existing - gone
            for call in creates
            if call.user_id == metadata.get(USER_KEY) and call.begun <= claimed <= call.ended
        ]
        beside = set.intersection(*map(set, of_claim)) if of_claim else set()
        if beside:
            detail = f"{stripe_id} beside {', '.join(sorted(beside))}"
            yield Violation("no customer is created beside an existing one", detail)
    released = {stripe_id for _, stripe_id in final.watch.released}
    for call in creates:
        for stripe_id in set(call.refused_for) - call.existing:
            of_others = actor.existing_with(account.customers[stripe_id]["email"])
            if stripe_id in released:
                continue  # no user has it any more
            is_new = account.customers[stripe_id]["created"] >= call.begun - CLOCK_SKEW_SECONDS
            if not is_new or stripe_id not in of_others | account.deleted_customers:
                detail = f"{call.name}: {stripe_id}"
                yield Violation("a create is refused for customers of others alone", detail)


def check_state(final: FinalState, skipped_users: Set[str] = frozenset()) -> Iterator[Violation]:
    """Check that records equal Stripe's objects and that no customer is lost or duplicated.

    Parameters
    ----------
    final : FinalState
        The state after a history.
    skipped_users : set of str
        Users that are not checked.
    """
    users = {call.user_id for call in final.calls} - skipped_users
    for user_id in sorted(users):
        yield from _check_user(final, user_id)
    yield from _check_deleted(final, skipped_users)
    yield from _check_duplicates(final, skipped_users)
    yield from _check_owners(final, skipped_users)
    yield from _check_released(final)
    if final.stores_unassigned:
        yield from _check_unassigned(final)


def check_walks(final: FinalState) -> Iterator[Violation]:
    """Check that runs have stored what Stripe has, as their mappings say, and changed no more."""
    walks = final.walks
    if walks is None:
        return
    yield from _check_writes(final, walks)
    for run in walks.metadata_runs:
        if not run.is_over:
            yield Violation("a run is completed", run.run_id)
        elif run.is_finished:
            yield from _check_metadata_run(final, run, walks.findings(run))
    for run in walks.runs:
        if not run.is_over:
            yield Violation("a run is completed", run.run_id)
        elif run.is_undone:
            yield from _check_undone(final, run)
        else:
            yield from _check_run(final, run, walks.findings(run))


def _check_writes(final: FinalState, walks: Walks) -> Iterator[Violation]:
    """Check that runs change customers on Stripe only to write our metadata, or to undo that."""
    writing = tuple(run.run_id for run in walks.metadata_runs)
    for function, name, path in final.stripe.writes:
        is_allowed = name.startswith(writing) or (function == UNDO and writing)
        if function in WALKING and not is_allowed:
            yield Violation("a run changes nothing on Stripe", f"{function}: {path}")


def _check_metadata_run(final: FinalState, run: WalkedRun, found: Set[str]) -> Iterator[Violation]:
    """Check that a finished run has written the metadata that was due, except what it reports.

    Customers that were created in the second of the run's start, or later, are left to the next
    run. Those that were assigned again since have another token.
    """
    account = final.double.account
    before = int(final.watch.images[f"RUN#{run.run_id}", "RUN"]["created_before"]["N"])
    left = found | account.deleted_customers
    active = final.watch.assigned_by_runs
    for stripe_id in sorted(run.due.keys() - left):
        customer = account.customers[stripe_id]
        is_listed = customer["created"] < before and customer["test_clock"] is None
        is_same = active.get(stripe_id) == run.due[stripe_id]
        if is_listed and is_same and "has_metadata" not in _pointer(final, stripe_id):
            detail = f"{run.run_id}: {stripe_id}"
            yield Violation("the metadata of an assigned customer is written, or reported", detail)


def _check_run(final: FinalState, run: WalkedRun, found: Set[str]) -> Iterator[Violation]:
    """Check what a finished run has stored, except what its report names.

    Of the customers without a row, those of the run's second and later ones are reported by events
    alone.
    """
    account = final.double.account
    released = {stripe_id for _, stripe_id in final.watch.released}
    gone = account.deleted_customers | found | final.watch.erased
    ended = {c.user_id for c in final.calls if c.kind in ("soft_delete", "release", "erase")}
    rows = [row for row in run.rows if row[1] in run.present - gone - released]
    for user_id, stripe_id in rows:
        has_claim = (f"USER#{user_id}", "CLAIM") in final.watch.images
        owner = text(_pointer(final, stripe_id), "user_id")
        if owner is None and not has_claim and user_id not in ended:
            yield Violation("a mapped customer is its user's", f"{stripe_id} of {user_id}")
    stored = {stripe_id for _, stripe_id in rows}
    if final.stores_unassigned:
        before = int(final.watch.images[f"RUN#{run.run_id}", "RUN"]["created_before"]["N"])
        listed = {name for name in run.present if account.customers[name]["created"] < before}
        stored |= listed - gone
    failed = _customers_with_failed_events(final)
    for stripe_id in sorted(stored):
        pointer = _pointer(final, stripe_id)
        partition = Owner(text(pointer, "user_id"), stripe_id).pk
        image = final.watch.images.get((partition, f"CUSTOMER#{stripe_id}"))
        if not pointer or image is None:
            yield Violation("a run stores every customer", f"{run.run_id}: {stripe_id}")
        elif image["is_active"]["BOOL"] and stripe_id not in failed:
            record = _with_children(final.watch, partition, image)
            yield from _check_record(final, record)


def _check_undone(final: FinalState, run: WalkedRun) -> Iterator[Violation]:
    """Check that no customer is its user's by a run that was undone; soft-deleted ones remain."""
    for (pk, sk), image in final.watch.images.items():
        if sk != "POINTER" or text(image, "run_id") != run.run_id:
            continue
        stripe_id = pk.removeprefix("STRIPE#")
        partition = Owner(text(image, "user_id"), stripe_id).pk
        record = final.watch.images.get((partition, f"CUSTOMER#{stripe_id}"))
        if record is None or record["is_active"]["BOOL"]:
            yield Violation("an undone run has assigned nothing", f"{run.run_id}: {stripe_id}")


def unknown_customers(final: FinalState) -> set[str]:
    """The customers that are to be stored as unassigned, and that no event has reported."""
    if not final.stores_unassigned:
        return set()
    listed = final.stripe_actor.without(TOKEN_KEY).intersection(final.stripe_actor.prior)
    return {stripe_id for stripe_id in listed if not _pointer(final, stripe_id)}


def listed_customers(final: FinalState) -> list[str]:
    """The customers with an active record that Stripe lists."""
    double = final.double.account
    listed = [
        sk.removeprefix("CUSTOMER#")
        for (_, sk), image in final.watch.images.items()
        if text(image, "record_type") == "Customer" and image["is_active"]["BOOL"]
    ]
    gone = double.deleted_customers | final.stripe_actor.moved | final.stripe_actor.copies
    return sorted(i for i in listed if i not in gone and double.customers[i]["test_clock"] is None)


def check_verified(final: FinalState, unknown: Set[str]) -> Iterator[Violation]:
    """Check that a verification has found all differences and no other, and that all are repaired.

    Parameters
    ----------
    final : FinalState
        The state after the repair.
    unknown : set of str
        The customers that were to be found missing.
    """
    actor = final.stripe_actor
    expected = {
        **dict.fromkeys(unknown, "missing"),
        **dict.fromkeys(actor.silently_changed, "stale name"),
    }
    copied = actor.moved | actor.copies  # which of the two is the user's can't be told
    found = {i: reason for i, reason in final.differences.items() if i not in copied}
    for stripe_id in sorted(expected.keys() | found.keys()):
        reasons = (found.get(stripe_id), expected.get(stripe_id))
        if reasons[0] != reasons[1]:
            detail = f"{stripe_id}: {reasons[0]} instead of {reasons[1]}"
            yield Violation("a verification finds what differs, and nothing else", detail)
    for stripe_id in sorted(expected):
        pointer = _pointer(final, stripe_id)
        partition = Owner(text(pointer, "user_id"), stripe_id).pk
        image = final.watch.images.get((partition, f"CUSTOMER#{stripe_id}"), {})
        if text(image, "name") != final.double.account.customers[stripe_id]["name"]:
            yield Violation("a difference is repaired", stripe_id)


def released_customers(final: FinalState) -> list[str]:
    """The ids of the customers that were released, that Stripe has, and that no user has."""
    gone = final.double.account.deleted_customers | final.watch.erased
    released = {stripe_id for _, stripe_id in final.watch.released} - gone
    return sorted(name for name in released if text(_pointer(final, name), "user_id") is None)


def check_adopted(final: FinalState) -> Iterator[Violation]:
    """Check that any user could adopt a released customer, once the history had ended."""
    for call in final.calls:
        if call.name.startswith("adoption ") and call.status != HTTPStatus.CREATED:
            detail = f"{call.user_id}: {call.status}"
            yield Violation("a released customer can be adopted", detail)


def check_replay(final: FinalState) -> Iterator[Violation]:
    """Check that a replay applies and publishes failed events once their cause has gone."""
    for stripe_id, event in final.watch.events.items():
        if text(event, "state") not in ("applied", "ignored"):
            yield Violation("a failed event can be replayed", f"{text(event, 'kind')} {stripe_id}")
    yield from _check_published(final)


def users_with_failed_events(final: FinalState) -> set[str]:
    """The users whose records may be wrong until their failed events are replayed."""
    users = set()
    customers = final.double.account.customers
    for event in final.watch.events.values():
        if text(event, "state") == "failed":
            customer = customers.get(text(event, "customer_id") or "", {"metadata": {}})
            users |= {text(event, "user_id"), customer["metadata"].get(USER_KEY)}
    return {user for user in users if user is not None}


def _check_recovered(final: FinalState) -> Iterator[Violation]:
    """Check that the sweep has found every event that was never delivered."""
    of_children = (event_type for kind in final.kinds for event_type in kind.EVENTS)
    swept = {*CUSTOMER_EVENT_TYPES, *of_children}
    for stripe_id, event in final.double.account.events.items():
        is_swept = event["type"] in swept or _is_publish_type(final, event["type"])
        if is_swept and stripe_id not in final.watch.events:
            yield Violation("an event that Stripe lists is stored", f"{event['type']} {stripe_id}")


def _check_foreign(final: FinalState) -> Iterator[Violation]:
    """Check that events of foreign customers cause no call to Stripe and leave no payload."""
    foreign = {name for name in final.stripe_actor.foreign if not _pointer(final, name)}
    # One that is to be stored is fetched if its payload can't be used, and may be deleted by then.
    calls = [] if final.stores_unassigned else final.stripe.calls
    for call in calls:
        if any(stripe_id in call for stripe_id in foreign - final.stripe_actor.copies):
            yield Violation("no call to Stripe is made for a foreign customer", call)
    for stripe_id, event in final.watch.events.items():
        is_foreign = text(event, "customer_id") in foreign and text(event, "state") != "failed"
        if is_foreign and "webhook_message" in event:
            yield Violation("a foreign event leaves no payload", f"{stripe_id} {event['state']}")


def _check_published(final: FinalState) -> Iterator[Violation]:
    """Check that every event of our customers that is to be published was published.

    Those are the events that change records, and those of the publish types, including events of
    these types that name no customer. One whose customer was no user's during its last attempt
    need not be: a user may have adopted the customer since, and a later delivery have linked the
    event to that user; or a run had given the customer to a user before, and was undone, or found
    that Stripe had deleted the customer.
    """
    if final.bus is None:
        return
    published: dict[str, list[float]] = {}
    for message, moment in zip(final.bus.messages, final.bus.times, strict=True):
        published.setdefault(json.loads(message)["event_id"], []).append(moment)
    ended = {c.user_id for c in final.calls if c.kind in ("soft_delete", "release")}
    for stripe_id, event in final.watch.events.items():
        user_id = text(event, "user_id")
        has_failed = text(event, "state") == "failed"  # a successful replay publishes it
        names_none = not event.keys() & {"customer_id", "payment_method_id"}
        if user_id in ended or has_failed or (user_id is None and not names_none):
            continue
        if stripe_id in final.watch.unassigned:
            continue
        payload = final.double.account.events.get(stripe_id)
        if payload is None or not _is_to_be_published(final, payload):
            continue
        detail = f"{payload['type']} {stripe_id}"
        if stripe_id not in published:
            yield Violation("an event of our customers is published", detail)
        elif published[stripe_id][-1] < final.watch.replayed.get(stripe_id, 0.0):
            yield Violation("a replayed event is published again", detail)


def _is_to_be_published(final: FinalState, payload: Json) -> bool:
    return _changes_records(final, payload) or _is_publish_type(final, payload["type"])


def _is_publish_type(final: FinalState, event_type: str) -> bool:
    return any(fnmatchcase(event_type, pattern) for pattern in final.publish_types)


def _check_messages(final: FinalState) -> Iterator[Violation]:
    """Check that nothing else was published, and that each message fits the schema."""
    of_children = (event_type for kind in KINDS for event_type in kind.EVENTS)
    changing = {*CUSTOMER_EVENT_TYPES, *of_children}
    for message in map(json.loads, final.bus.messages if final.bus else ()):
        stripe_id, event_type = message["event_id"], message["type"]
        detail = f"{event_type} {stripe_id}"
        if stripe_id not in final.double.account.events:
            yield Violation("modes and accounts never mix", detail)
        if message["customer_id"] in final.stripe_actor.foreign:
            yield Violation("no event of a foreign customer is published", detail)
        if event_type not in changing and not _is_publish_type(final, event_type):
            yield Violation("no event of another type is published", detail)
        for error in schema_errors(message):
            yield Violation("a message fits its schema", f"{detail}: {error}")


def _changes_records(final: FinalState, payload: Json) -> bool:
    return payload["type"] in CUSTOMER_EVENT_TYPES or any(
        payload["type"] in kind.EVENTS and kind.concerns(payload["data"]["object"])
        for kind in final.kinds
    )


def _check_side_effects_once(final: FinalState) -> Iterator[Violation]:
    """Check that events are published and handled again only after an invocation with a fault."""
    published: dict[str, list[Invocation]] = {}
    if final.bus is not None:
        for message, sender in zip(final.bus.messages, final.bus.senders, strict=True):
            published.setdefault(json.loads(message)["event_id"], []).append(sender)
    for action, invocations_by_event in (
        ("published", published),
        ("handled", final.handlers.handled),
    ):
        for stripe_id, invocations in invocations_by_event.items():
            event = final.watch.events.get(stripe_id, {})
            is_repeated = any(earlier.is_fault_free for earlier in invocations[:-1])
            if is_repeated and "replayed_at" not in event:
                detail = f"{stripe_id} by {', '.join(i.name for i in invocations)}"
                yield Violation(f"an event is {action} once", detail)


def _check_failures(final: FinalState) -> Iterator[Violation]:
    """Check that an event only fails after all its attempts, or because no attempt can succeed."""
    for failure in final.watch.failures:
        is_hopeless = (
            f"EVENT#{failure.stripe_id}" in final.poisonous
            or failure.stripe_id in final.handlers.refused
        )
        was_attempted = failure.attempts >= MAX_ATTEMPTS and failure.seconds >= _MIN_RETRY_SECONDS
        if not is_hopeless and not was_attempted:
            detail = f"{failure.stripe_id}: {failure.attempts} attempts in {failure.seconds:.0f} s"
            yield Violation("an event fails only after all attempts", detail)


def _check_crafted(final: FinalState) -> Iterator[Violation]:
    for stripe_id, kind in final.stripe_actor.crafted.items():
        statuses = final.stripe_actor.statuses[stripe_id]
        state = text(final.watch.events.get(stripe_id, {}), "state")
        if kind == "forged":
            # The sender of an event sees 502 where the process died.
            if state is not None or any(status < 400 for status in statuses):
                yield Violation("a forged event is refused", f"{stripe_id}: {statuses}, {state}")
        elif state not in (None, "ignored"):
            yield Violation("modes and accounts never mix", f"{kind} {stripe_id} is {state}")
        elif state is None and any(200 <= status < 300 for status in statuses):
            yield Violation("an accepted event is stored", stripe_id)


def _check_user(final: FinalState, user_id: str) -> Iterator[Violation]:
    customer = _active_customer(final.watch, user_id)
    if customer is not None:
        yield from _check_customer(final, user_id, customer)
    elif _was_created_last(final, user_id):
        customers = final.double.account.customers
        deleted = final.double.account.deleted_customers - final.stripe_actor.foreign
        owners = {_pointer(final, name).get("user_id", {}).get("S") for name in deleted}
        owners |= {customers[name]["metadata"].get(USER_KEY) for name in deleted}
        if user_id not in owners:
            yield Violation("a created customer stays", f"{user_id} has none")


def _check_deleted(final: FinalState, skipped_users: Set[str]) -> Iterator[Violation]:
    """Check the records of customers that Stripe deleted while they were active here."""
    soft_deleted = {call.user_id for call in final.calls if call.kind == "soft_delete"}
    for stripe_id in sorted(final.double.account.deleted_customers):
        for (pk, sk), image in list(final.watch.images.items()):
            user_id = pk.removeprefix("USER#")
            if sk != f"CUSTOMER#{stripe_id}" or user_id in {*soft_deleted, *skipped_users}:
                continue
            record = _with_children(final.watch, pk, image)
            if record.default_payment_id:
                yield Violation("a deleted customer has no default", f"{user_id}: {stripe_id}")
            for child in record.children:
                if isinstance(child, Subscription):
                    yield from _check_ended(final, child)
                elif child.is_attached:
                    yield Violation("a deleted customer has nothing attached", child.sk)


def _check_ended(final: FinalState, stored: Subscription) -> Iterator[Violation]:
    """Check that a deleted customer's subscription has ended, with the times of its last event."""
    if stored.status not in ENDED:
        detail = f"{stored.stripe_id} is {stored.status}"
        yield Violation("a deleted customer's subscriptions have ended", detail)
    ended = [
        event
        for stripe_id, event in final.double.account.events.items()
        if event["type"] == "customer.subscription.deleted"
        and event["data"]["object"]["id"] == stored.stripe_id
        and text(final.watch.events.get(stripe_id, {}), "state") == "applied"
    ]
    for event in ended:
        on_stripe = event["data"]["object"]
        names = ("status", "canceled_at", "ended_at", "cancellation_details")
        pairs = {name: (getattr(stored, name), on_stripe.get(name)) for name in names}
        yield from _differences(stored.stripe_id, pairs)


def _active_customer(watch: Watch, user_id: str) -> Customer | None:
    """The user's active customer with its children."""
    partition = f"USER#{user_id}"
    stripe_id = text(watch.images.get((partition, "CLAIM"), {}), "stripe_id")
    image = watch.images.get((partition, f"CUSTOMER#{stripe_id}"))
    return _with_children(watch, partition, image) if image else None


def _with_children(watch: Watch, partition: str, image: Json) -> Customer:
    customer = Customer.from_raw_data(image)
    for kind in KINDS:
        under = kind.key_under(customer.stripe_id, "")
        customer.children += [
            kind.from_raw_data(child)
            for (pk, sk), child in watch.images.items()
            if pk == partition and sk.startswith(under)
        ]
    return customer


def _was_created_last(final: FinalState, user_id: str) -> bool:
    """Return whether a create succeeded, and nothing ended the customer at that time or since."""
    calls = [call for call in final.calls if call.user_id in (user_id, "")]
    creates = [c for c in calls if c.kind == "create" and 200 <= c.status < 300]
    if not creates:
        return False
    last = max(creates, key=lambda call: call.begun)
    ends = [c.ended for c in calls if c.kind in ("soft_delete", "release", "erase")]
    # A create returns the customer that a run gave to the user; undoing the run releases it.
    ends += [at for (user, _), at in final.watch.released.items() if user == user_id]
    return not any(end > last.begun for end in ends)


def _check_customer(final: FinalState, user_id: str, record: Customer) -> Iterator[Violation]:
    stripe_id = record.stripe_id
    if stripe_id in final.stripe_actor.foreign:
        yield Violation("a foreign customer is never adopted", f"{user_id}: {stripe_id}")
    else:
        yield from _check_record(final, record)


def _check_record(final: FinalState, record: Customer) -> Iterator[Violation]:
    """Check that an active record equals Stripe's customer."""
    stripe_id = record.stripe_id
    customer = _ask(final.double, f"/v1/customers/{stripe_id}", {"expand": ["sources"]})
    if customer.get("deleted") or "error" in customer:
        yield Violation("a customer that Stripe deleted is not active", f"{record.pk}: {stripe_id}")
        return
    # A nested list shows only its first entries.
    customer["sources"]["data"] = _all(final.double, f"/v1/customers/{stripe_id}/sources", {})
    values = Customer.values_of(customer)
    yield from _differences(
        stripe_id, {name: (getattr(record, name), value) for name, value in values.items()}
    )
    objects = {kind: _LISTS[kind](final.double, stripe_id) for kind in KINDS}
    for kind in final.kinds:
        if not _is_compared(final, record, kind):
            continue
        on_stripe = kind.from_stripe(record.pk, customer, objects[kind], _ANY_TIME)
        yield from _compare(kind.COLLECTION, record.attached(kind), on_stripe)
    yield from _compare_without_mapping(final, record, customer, objects)


def _is_compared(final: FinalState, record: Customer, kind: type[Child]) -> bool:
    """Return whether all children of a kind are stored: a run does not list every kind."""
    is_listed = kind is Subscription or record.listing_observation(kind) is not None
    return is_listed or record.stripe_id not in final.watch.walked


def _list_cards(double: StripeDouble, stripe_id: str) -> list[Json]:
    return _all(double, f"/v1/customers/{stripe_id}/payment_methods", {"type": "card"})


def _list_subscriptions(double: StripeDouble, stripe_id: str) -> list[Json]:
    subscriptions = _all(double, "/v1/subscriptions", {"customer": stripe_id, "status": "all"})
    for subscription in subscriptions:
        subscription["items"]["data"] = _all(
            double, "/v1/subscription_items", {"subscription": subscription["id"]}
        )
    return subscriptions


def _list_tax_ids(double: StripeDouble, stripe_id: str) -> list[Json]:
    return _all(double, f"/v1/customers/{stripe_id}/tax_ids", {})


def _list_other_methods(double: StripeDouble, stripe_id: str) -> list[Json]:
    methods = _all(double, f"/v1/customers/{stripe_id}/payment_methods", {})
    return [method for method in methods if method["type"] != "card"]


def _list_entitlements(double: StripeDouble, stripe_id: str) -> list[Json]:
    return _all(double, "/v1/entitlements/active_entitlements", {"customer": stripe_id})


_LISTS: dict[type[Child], Callable[[StripeDouble, str], list[Json]]] = {
    Card: _list_cards,
    Subscription: _list_subscriptions,
    TaxId: _list_tax_ids,
    PaymentMethod: _list_other_methods,
    Entitlement: _list_entitlements,
}
"""The objects of each kind that a customer has on Stripe, without the product's gateway."""


def _compare(
    what: str, children: Sequence[Child], on_stripe: Sequence[Child]
) -> Iterator[Violation]:
    stored = {child.stripe_id: child for child in children}
    expected = {child.stripe_id: child for child in on_stripe}
    if stored.keys() != expected.keys():
        detail = f"{what} are {sorted(stored)}, Stripe has {sorted(expected)}"
        yield Violation("a record equals Stripe's", detail)
    for name in sorted(stored.keys() & expected.keys()):
        from_stripe = [n for n, f in fields_of(type(expected[name])).items() if f.paths]
        yield from _differences(
            name, {n: (getattr(stored[name], n), getattr(expected[name], n)) for n in from_stripe}
        )


def _differences(stripe_id: str, pairs: Mapping[str, tuple[Any, Any]]) -> Iterator[Violation]:
    """The fields whose stored value is not the one on Stripe."""
    for name, (found, value) in pairs.items():
        if found != value:
            detail = f"{stripe_id}: {name} is {found!r}, Stripe has {value!r}"
            yield Violation("a record equals Stripe's", detail)


def _compare_without_mapping(
    final: FinalState, record: Customer, customer: Json, objects: dict[type[Child], list[Json]]
) -> Iterator[Violation]:
    """Compare some fields without the product's mapping, which could lose them on both sides."""
    reduced = {s.stripe_id for s in record.subscriptions if s.is_incomplete}
    pairs = {
        "email": (record.email, customer["email"]),
        "name": (record.name, customer["name"]),
        "metadata": (record.metadata, customer["metadata"]),
        "balance": (record.balance, customer["balance"]),
        "default_source": (record.default_source, customer["default_source"]),
        "cards": (
            sorted((c.last4 or "", c.exp_month or 0) for c in record.cards),
            sorted((m["card"]["last4"], m["card"]["exp_month"]) for m in objects[Card]),
        ),
        "subscriptions": (
            sorted((s.stripe_id, s.status or "", len(s.items or ())) for s in record.subscriptions),
            sorted(
                (s["id"], s["status"], 0 if s["id"] in reduced else len(s["items"]["data"]))
                for s in objects[Subscription]
            ),
        ),
    }
    if not _is_compared(final, record, Card):
        del pairs["cards"]
    yield from _differences(record.stripe_id, pairs)


def _check_owners(final: FinalState, skipped_users: Set[str]) -> Iterator[Violation]:
    """Check that claim, record, pointer and Stripe's metadata name the same owner."""
    for (pk, sk), image in final.watch.images.items():
        if text(image, "record_type") != "Customer" or not image["is_active"]["BOOL"]:
            continue
        if pk.startswith("UNASSIGNED#"):
            continue
        user_id, stripe_id = pk.removeprefix("USER#"), sk.removeprefix("CUSTOMER#")
        claim = text(final.watch.images.get((pk, "CLAIM"), {}), "stripe_id")
        owner = text(_pointer(final, stripe_id), "user_id")
        if user_id not in skipped_users and (claim, owner) != (stripe_id, user_id):
            detail = f"{stripe_id} of {user_id}: claim {claim}, pointer {owner}"
            yield Violation("a customer has one owner", detail)
    actor, account = final.stripe_actor, final.double.account
    released = {stripe_id for _, stripe_id in final.watch.released}
    gone = actor.moved | account.deleted_customers | final.watch.erased
    for stripe_id in released.union(actor.existing, actor.prior) - gone:
        pointer = _pointer(final, stripe_id)
        metadata = account.customers[stripe_id]["metadata"]
        # A backfill changes nothing on Stripe; a later run does.
        is_written = "run_id" not in pointer or "has_metadata" in pointer
        own = (text(pointer, "user_id"), text(pointer, "token"))
        expected = own if is_written else (None, None)
        found = (metadata.get(USER_KEY), metadata.get(TOKEN_KEY))
        is_half_done = found == own and final.walks is not None and final.walks.has_abandoned_run
        if found != expected and not is_half_done:
            detail = f"{stripe_id}: {found} instead of {expected}"
            yield Violation("the metadata of a customer names its owner, if any", detail)


def _check_unassigned(final: FinalState) -> Iterator[Violation]:
    """Check that every customer without a token is stored, and is current if no user has it."""
    actor, account = final.stripe_actor, final.double.account
    failed = _customers_with_failed_events(final)
    for stripe_id, customer in account.customers.items():
        has_token = TOKEN_KEY in customer["metadata"] or stripe_id in {*actor.moved, *actor.copies}
        if has_token or stripe_id in failed | account.deleted_customers | final.watch.erased:
            continue
        pointer, partition = _pointer(final, stripe_id), f"UNASSIGNED#{stripe_id}"
        if not pointer and stripe_id in actor.prior:
            continue  # no event has reported it
        image = final.watch.images.get((partition, f"CUSTOMER#{stripe_id}"))
        if not pointer or (image is None and "user_id" not in pointer):
            yield Violation("a customer that no user has is stored", stripe_id)
        elif image is not None and "user_id" in pointer:
            yield Violation("an unassigned customer is no user's", stripe_id)
        elif image is not None:
            yield from _check_record(final, _with_children(final.watch, partition, image))


def _customers_with_failed_events(final: FinalState) -> set[str | None]:
    """The customers whose records may be wrong until their failed events are replayed."""
    return {
        text(event, "customer_id")
        for event in final.watch.events.values()
        if text(event, "state") == "failed"
    }


def _check_released(final: FinalState) -> Iterator[Violation]:
    """Check that nothing is left of a released customer, and that its user has no claim."""
    for (user_id, stripe_id), moment in final.watch.released.items():
        pk, sk = f"USER#{user_id}", f"CUSTOMER#{stripe_id}"
        calls = [call for call in final.calls if call.user_id == user_id]
        releases = [c for c in calls if c.kind == "release" and c.begun <= moment <= c.ended]
        if (pk, sk) in final.watch.images or all(
            c.status != HTTPStatus.NO_CONTENT for c in releases
        ):
            continue  # it was adopted again, or the response did not say that it was complete
        if any(key[0] == pk and key[1].startswith(f"{sk}#") for key in final.watch.images):
            yield Violation("a released customer leaves no records", f"{user_id}: {stripe_id}")
        is_last = not any(c.kind in _ASSIGNING and c.ended > moment for c in calls)
        claim = final.watch.images.get((pk, "CLAIM"), {})
        if is_last and text(claim, "stripe_id") == stripe_id:
            yield Violation("a user whose customer was released has no claim", user_id)


def _pointer(final: FinalState, stripe_id: str) -> Json:
    return final.watch.images.get((f"STRIPE#{stripe_id}", "POINTER"), {})


def _check_duplicates(final: FinalState, skipped_users: Set[str]) -> Iterator[Violation]:
    account = final.double.account
    known: dict[str, list[str]] = {}
    for stripe_id, customer in account.customers.items():
        user_id = customer["metadata"].get(USER_KEY)
        if user_id is None or user_id in skipped_users or stripe_id in final.stripe_actor.foreign:
            continue
        # Stripe may have refused to remove the metadata of an erased one.
        if stripe_id in account.deleted_customers | final.watch.erased:
            continue
        record = final.watch.images.get((f"USER#{user_id}", f"CUSTOMER#{stripe_id}"))
        if record is None:
            yield Violation("a customer of ours on Stripe has a record", f"{user_id}: {stripe_id}")
        if record is None or record["is_active"]["BOOL"]:
            known.setdefault(user_id, []).append(stripe_id)
    for user_id, ids in known.items():
        if len(ids) > 1:
            yield Violation("Stripe holds no duplicate", f"{user_id}: {', '.join(ids)}")


def _ask(double: StripeDouble, path: str, params: Json) -> Json:
    response: Json = double.request("GET", path, params, AUTHORIZATION).body
    return response


def _all(double: StripeDouble, path: str, params: Json) -> list[Json]:
    objects: list[Json] = _ask(double, path, {**params, "limit": 100})["data"]
    return objects
