"""Invariants of every moment, checked on the table's stream as it grows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from local.stripe_double.double import StripeDouble
from simulation.stripe_actor import FOREIGN_EMAIL
from simulation.worker import UNDO
from stripe_integrations.actions.customers.snapshot import TOKEN_KEY
from stripe_integrations.models import Customer

Json = dict[str, Any]
Key = tuple[str, str]

_WALK = "walk_account"
UNFINISHED = ("pending", "waiting")
ENDED = ("canceled", "incomplete_expired")
"""The final statuses of a subscription."""
_COMPLETED_AFTER_DELETION = {
    "CUSTOMER": {"version", "modified_at"},
    "SUBSCRIPTION": {
        "status",
        "canceled_at",
        "ended_at",
        "cancellation_details",
        "observed_from",
        "observed_to",
    },
}
"""What the final event of a subscription may change after Stripe has deleted its customer."""
_REQUEST = {"fetch_requests", "fetching_until"}
"""The attributes that a request for a fetch changes; it does not raise the version."""


@dataclass(frozen=True)
class Violation:
    """A promise that was broken.

    Parameters
    ----------
    promise : str
        The promise, in the same words for all its violations.
    detail : str
        What was found.
    """

    promise: str
    detail: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.detail}"


@dataclass(frozen=True)
class Failure:
    """An event that has failed.

    Parameters
    ----------
    stripe_id : str
        The event's id.
    attempts : int
        How often it was attempted.
    seconds : float
        Seconds from its first attempt until it failed.
    """

    stripe_id: str
    attempts: int
    seconds: float


_LATE_SECONDS = 600
"""The age of a customer on Stripe at which its new record says nothing of its children."""


class Watch:
    """A copy of the table that checks each change.

    Parameters
    ----------
    records : sequence
        The stream records; new ones are appended.
    double : StripeDouble
        The Stripe account.
    on_violation : callable
        Called with each violation.
    clock : callable
        Returns Unix time.

    Attributes
    ----------
    images : dict
        The items of the table by key.
    erased : set of str
        The customers that have a tombstone.
    to_be_erased : dict
        The customers that work items of erasures have named, with the users who had them.
    kept : set of str
        Of these, the ones that another user has got meanwhile, and keeps.
    events : dict
        The event items by Stripe id.
    failures : list of Failure
        One entry for each time that an event failed.
    replayed : dict
        When each event was last replayed, by Stripe id.
    unassigned : set of str
        The events whose customer was known, and was no user's, when a worker claimed them last, or
        since, until they were finished.
    released : dict
        When a customer was last released, by the ids of its user and of the customer.
    releasing, adopting : Counter
        How many releases by a user, and calls that may adopt, are in progress, by the user's id.
    claimed : dict
        When each claim was stored, by its tokens.
    writer : str
        The function whose call has taken effect last.
    mapped : set of tuple
        The ids of a user and of a customer: the rows of the mappings so far.
    undone : set of str
        The runs that are undone, or were.
    walked : set of str
        The customers whose record was stored by a run: not all children may have been listed.
    """

    def __init__(
        self,
        records: Sequence[Json],
        double: StripeDouble,
        on_violation: Callable[[Violation], None],
        clock: Callable[[], float],
    ) -> None:
        self.images: dict[Key, Json] = {}
        self.erased: set[str] = set()
        self.to_be_erased: dict[str, set[str | None]] = {}
        self.kept: set[str] = set()
        self.events: dict[str, Json] = {}
        self._records = records
        self._double = double
        self._on_violation = on_violation
        self._clock = clock
        self.failures: list[Failure] = []
        self.replayed: dict[str, float] = {}
        self.unassigned: set[str] = set()
        self.released: dict[Key, float] = {}
        self.releasing: Counter[str] = Counter()
        self.claimed: dict[str, float] = {}
        self.adopting: Counter[str] = Counter()
        self.writer = ""
        self.mapped: set[Key] = set()
        self.undone: set[str] = set()
        self.walked: set[str] = set()
        self._unassigned_customers: set[str] = set()
        self._first_attempts: dict[str, float] = {}
        self._position = 0
        self._soft_deleted: dict[Key, bool] = {}
        self._moved: set[str] = set()

    @property
    def unfinished(self) -> list[Json]:
        """The events that are still pending or waiting."""
        return [e for e in self.events.values() if text(e, "state") in UNFINISHED]

    @property
    def metadata_updates(self) -> list[Json]:
        """The work items of metadata that is due on Stripe."""
        return [image for (_, sk), image in self.images.items() if sk == "METADATA"]

    @property
    def due_fetches(self) -> list[Json]:
        """The customers whose children are due to be fetched."""
        return [image for image in self.images.values() if text(image, "queue") == "children"]

    @property
    def assigned_by_runs(self) -> dict[str, str]:
        """The tokens of the active customers that runs have assigned, by Stripe id."""
        found = {}
        for (pk, sk), image in self.images.items():
            if sk == "POINTER" and image.keys() >= {"user_id", "run_id"}:
                stripe_id = pk.removeprefix("STRIPE#")
                owner = (f"USER#{text(image, 'user_id')}", f"CUSTOMER#{stripe_id}")
                record = self.images.get(owner)
                if record and record["is_active"]["BOOL"]:
                    found[stripe_id] = str(text(image, "token"))
        return found

    @property
    def erasures(self) -> list[Json]:
        """The work items of erasures."""
        return [image for (_, sk), image in self.images.items() if sk == "ERASE"]

    def check_changes(self) -> None:
        """Check the changes since the last call: those of one request, as a whole."""
        new_records = self._records[self._position :]
        self._position += len(new_records)
        self._moved = {
            record["dynamodb"]["Keys"]["sk"]["S"]
            for record in new_records
            if "NewImage" not in record["dynamodb"]
        }
        already_erased = set(self.erased)
        for record in new_records:
            self._note_erasure(record["dynamodb"].get("NewImage", {}))
        for record in new_records:
            keys = record["dynamodb"]["Keys"]
            key = (keys["pk"]["S"], keys["sk"]["S"])
            new = record["dynamodb"].get("NewImage")
            if new and key[1].startswith("CUSTOMER#") and _customer_of(key) in already_erased:
                self._violated("nothing of an erased customer is stored", key[1])
            self._check(key, self.images.get(key), new)
            self._store(key, new)
        changed = [record["dynamodb"]["Keys"] for record in new_records]
        keys = {(key["pk"]["S"], key["sk"]["S"]) for key in changed}
        for pk, sk in sorted(keys):
            if sk.startswith("CUSTOMER#") and (pk, sk) not in self.images:
                self._check_deleted(pk, sk)
        for user in {pk for pk, _ in keys}:
            if user.startswith("USER#"):
                self._check_user(user)

    def _store(self, key: Key, new: Json | None) -> None:
        if key[1] == "EVENT" and new is not None:
            self._check_event(key[0], self.images.get(key, new), new)
            self.events[key[0].removeprefix("EVENT#")] = new
        if key[1] == "CLAIM" and new is not None:
            self._note_claim(new)
        if key[1] == "POINTER":
            self._note_owner(key[0].removeprefix("STRIPE#"), new)
        if new is None:
            self.images.pop(key, None)
        else:
            self.images[key] = new

    def _note_owner(self, stripe_id: str, pointer: Json | None) -> None:
        """Note whether a customer that had a pointer, or has one, is no user's."""
        if "user_id" in (pointer or {}):
            self._unassigned_customers.discard(stripe_id)
            return
        self._unassigned_customers.add(stripe_id)
        self.unassigned |= {
            event_id
            for event_id, event in self.events.items()
            if text(event, "customer_id") == stripe_id and text(event, "state") in UNFINISHED
        }

    def _note_claim(self, claim: Json) -> None:
        """Note when a claim was stored; one with a new token is the same claim."""
        former = json.loads(text(claim, "former_tokens") or "[]")
        stored = [self.claimed[token] for token in former if token in self.claimed]
        self.claimed.setdefault(text(claim, "token") or "", min(stored, default=self._clock()))

    def _note_erasure(self, new: Json) -> None:
        if text(new, "record_type") == "Erasure":
            for stripe_id in json.loads(new["customers"]["S"]):
                self.to_be_erased.setdefault(stripe_id, set()).add(text(new, "user_id"))
                self._note_kept(self.images.get((f"STRIPE#{stripe_id}", "POINTER"), {}))
        elif text(new, "record_type") == "Pointer":
            self._note_kept(new)
        if "erased_at" in new:
            self.erased.add(new["pk"]["S"].removeprefix("STRIPE#"))

    def _note_kept(self, pointer: Json) -> None:
        stripe_id = (text(pointer, "pk") or "").removeprefix("STRIPE#")
        users = self.to_be_erased.get(stripe_id)
        if users and "user_id" in pointer and text(pointer, "user_id") not in users:
            self.kept.add(stripe_id)

    def _check(self, key: Key, old: Json | None, new: Json | None) -> None:
        kind, *rest = key[1].split("#")
        if kind == "POINTER" and old is not None:
            self._check_pointer(key, old, new)
        if kind == "CLAIM" and old is not None and self.writer == _WALK:
            self._check_claim(key, old, new)
        if kind != "CUSTOMER":
            return
        record_kind = rest[1] if len(rest) > 1 else kind
        if self._is_frozen((key[0], rest[0]), record_kind, old, new):
            self._violated("a soft-deleted record is frozen", f"{key[1]} was changed")
        if new is None:
            return  # checked after the whole request
        if len(rest) == 1:
            self._check_customer(key, old, new)
        else:
            self._check_child(key, old, new)

    def _check_pointer(self, key: Key, old: Json, new: Json | None) -> None:
        """Check that a run takes no customer from a user, except to undo its own assignment."""
        user_id, after = text(old, "user_id"), text(new or {}, "user_id")
        if user_id in (None, after):
            return
        stripe_id = key[0].removeprefix("STRIPE#")
        detail = f"{stripe_id} of {user_id}"
        if self.writer == UNDO and text(old, "run_id") not in self.undone:
            self._violated("only what a run has assigned is undone", detail)
        has_record = (f"USER#{user_id}", f"CUSTOMER#{stripe_id}") in self.images
        if self.writer == _WALK and (after is not None or has_record):
            self._violated("no user loses a customer by a run", detail)

    def _check_claim(self, key: Key, old: Json, new: Json | None) -> None:
        """Check that a run takes no claim from a user; it may complete one of a create."""
        stripe_id, after = text(old, "stripe_id"), text(new or {}, "stripe_id")
        if stripe_id == after:
            return
        if stripe_id is None:
            token = self._double.account.customers[after]["metadata"].get(TOKEN_KEY) if after else 0
            is_kept = token in (text(old, "token"), *json.loads(text(old, "former_tokens") or "[]"))
        else:
            record = self.images.get((key[0], f"CUSTOMER#{stripe_id}"))
            is_active = record is not None and record["is_active"]["BOOL"]
            is_kept = after is None and not is_active
        if not is_kept:
            detail = f"{key[0]}: {after} instead of {stripe_id}"
            self._violated("no user loses a customer by a run", detail)

    def _is_frozen(self, customer: Key, kind: str, old: Json | None, new: Json | None) -> bool:
        """Whether this change of a soft-deleted customer, or of a child of it, is forbidden."""
        if customer not in self._soft_deleted or new == old or customer[1] in self.to_be_erased:
            return False
        if not self._soft_deleted[customer] or old is None or new is None:
            return True
        changed = {name for name in {*old, *new} if old.get(name) != new.get(name)}
        return not changed <= _COMPLETED_AFTER_DELETION.get(kind, set())

    def _check_deleted(self, pk: str, sk: str) -> None:
        """Check that a record was released, a child's with its customer or later, or erased."""
        user_id, stripe_id = pk.removeprefix("USER#"), sk.split("#")[1]
        if stripe_id in self.to_be_erased:
            return
        if pk.startswith("UNASSIGNED#"):
            self._check_adopted(pk, sk, stripe_id)
            return
        is_released = self.releasing[user_id] or self.writer == UNDO
        if not is_released or (pk, f"CUSTOMER#{stripe_id}") in self.images:
            self._violated("no record is deleted", sk)
        if sk.count("#") == 1:
            self.released[user_id, stripe_id] = self._clock()
            owner = text(self.images.get((f"STRIPE#{stripe_id}", "POINTER"), {}), "user_id")
            if owner == user_id:
                self._violated("a released customer has no owner", f"{user_id}: {stripe_id}")

    def _check_adopted(self, pk: str, sk: str, stripe_id: str) -> None:
        """Check that an unassigned customer's record was deleted since a user has it.

        Children may be deleted before, if the record says that they were not listed.
        """
        owner = text(self.images.get((f"STRIPE#{stripe_id}", "POINTER"), {}), "user_id")
        record = self.images.get((pk, f"CUSTOMER#{stripe_id}"))
        is_adopted = record is None and (f"USER#{owner}", f"CUSTOMER#{stripe_id}") in self.images
        is_dropped = record is not None and "listings" not in record
        if not is_adopted and not (is_dropped and sk.count("#") > 1):
            self._violated("no record is deleted", sk)
        is_mapped = self.writer == _WALK and (str(owner), stripe_id) in self.mapped
        if is_adopted and owner and not self.adopting[owner] and not is_mapped:
            adopted = Customer.from_raw_data(self.images[f"USER#{owner}", f"CUSTOMER#{stripe_id}"])
            if owner not in (adopted.metadata or {}).values():
                detail = f"{stripe_id} by {owner}"
                self._violated("a customer is adopted by the user that its record names", detail)

    def _check_event(self, pk: str, old: Json, new: Json) -> None:
        stripe_id = pk.removeprefix("EVENT#")
        if "claimed_at" in new and new["claimed_at"] != old.get("claimed_at"):
            self.unassigned.discard(stripe_id)
        was_unfinished = text(old, "state") in UNFINISHED
        if was_unfinished and text(new, "customer_id") in self._unassigned_customers:
            self.unassigned.add(stripe_id)
        # A replay whose first response was lost may take effect twice.
        is_replay = "replayed_at" in new and new["attempts"]["N"] == "0"
        if is_replay or old.get("replayed_at") != new.get("replayed_at"):
            self._first_attempts.pop(stripe_id, None)
            self.replayed[stripe_id] = self._clock()
            return
        attempts, now = int(new["attempts"]["N"]), self._clock()
        first = now if attempts == 0 else self._first_attempts.setdefault(stripe_id, now)
        if text(new, "state") == "failed" != text(old, "state"):
            self.failures.append(Failure(stripe_id, attempts, now - first))
        if text(old, "state") not in UNFINISHED and text(new, "state") in UNFINISHED:
            self._violated("a finished event stays finished", pk)
        if attempts < int(old["attempts"]["N"]):
            self._violated("an attempt that was counted stays counted", pk)

    def _check_customer(self, key: Key, old: Json | None, new: Json) -> None:
        if "run_id" in new:
            self.walked.add(key[1].removeprefix("CUSTOMER#"))
        is_fetched = "run_id" in new or key[1] in self._moved
        if old is None and "listings" in new and not is_fetched:
            created = self._double.account.customers[key[1].removeprefix("CUSTOMER#")]["created"]
            if self._clock() > created + _LATE_SECONDS:
                self._violated("a record that is stored late is fetched", key[1])
        if old:
            self._check_version(key, old, new)
        if text(new, "email") == FOREIGN_EMAIL or new.get("livemode", {}).get("BOOL"):
            self._violated("modes and accounts never mix", key[1])

    def _check_version(self, key: Key, old: Json, new: Json) -> None:
        before, after = (int(item.get("fetch_requests", {}).get("N", 0)) for item in (old, new))
        if after < before:
            self._violated("a counted request stays counted", key[1])
        if int(new["version"]["N"]) > int(old["version"]["N"]):
            return
        if any(old.get(name) != new.get(name) for name in {*old, *new} - _REQUEST):
            self._violated("the version is raised by every write", key[1])

    def _check_child(self, key: Key, old: Json | None, new: Json) -> None:
        _, customer, kind, child = key[1].split("#")
        if old is None:
            return
        if "removed_at" in old and "removed_at" not in new:
            is_attached = self._double.payment_methods.belongs(child, customer) or kind != "CARD"
            if not is_attached:
                self._violated("a removed object is not restored", key[1])
        if text(old, "status") in ENDED and text(new, "status") not in (*ENDED, None):
            self._violated("an ended subscription stays ended", key[1])

    def _check_user(self, user: str) -> None:
        active = []
        for (pk, sk), image in self.images.items():
            if pk != user or not sk.startswith("CUSTOMER#") or sk.count("#") != 1:
                continue
            if image["is_active"]["BOOL"]:
                active.append(sk)
            else:
                is_by_stripe = "deleted" in image and bool(image["deleted"]["BOOL"])
                self._soft_deleted[pk, sk.removeprefix("CUSTOMER#")] = is_by_stripe
                if is_by_stripe:
                    self._check_subscriptions_have_ended(pk, sk)
        if len(active) > 1:
            self._violated("a user has one active customer", f"{user}: {', '.join(active)}")
        pointer = text(self.images.get((user, "CLAIM"), {}), "stripe_id")
        expected = active[0].removeprefix("CUSTOMER#") if active else None
        if pointer != expected and not (expected is None and self._is_staged(user, pointer)):
            detail = f"{user}: {pointer}, not {expected}"
            self._violated("the pointer names the active customer", detail)

    def _is_staged(self, user: str, stripe_id: str | None) -> bool:
        """Return whether a mapping gave the user a customer whose record is not stored yet."""
        pointer = self.images.get((f"STRIPE#{stripe_id}", "POINTER"), {})
        is_users = f"USER#{text(pointer, 'user_id')}" == user and "run_id" in pointer
        return is_users and (user, f"CUSTOMER#{stripe_id}") not in self.images

    def _check_subscriptions_have_ended(self, user: str, customer: str) -> None:
        """Check that no subscription is active, not even until its own event is applied."""
        for (pk, sk), image in self.images.items():
            is_subscription = pk == user and sk.startswith(f"{customer}#SUBSCRIPTION#")
            if is_subscription and text(image, "status") not in (*ENDED, None):
                self._violated("a deleted customer's subscriptions have ended", sk)

    def _violated(self, promise: str, detail: str) -> None:
        self._on_violation(Violation(promise, detail))


def _customer_of(key: Key) -> str:
    """The Stripe customer that a record, or one of a child, is of."""
    return key[1].split("#")[1]


def text(image: Json, name: str) -> str | None:
    """A string attribute of an item in DynamoDB's JSON, or None."""
    value = image.get(name)
    found = None if value is None else value.get("S")
    return None if found is None else str(found)
