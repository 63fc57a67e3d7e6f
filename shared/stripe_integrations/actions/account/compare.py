"""Comparing Stripe's objects with what is stored: nothing is written here.

Embedded objects that Stripe has by themselves, such as prices, tax rates and coupons, are compared
by their ids: no event of the customer reports that they change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from stripe_integrations.actions.account.backfill import stores_unassigned
from stripe_integrations.actions.account.page import Json
from stripe_integrations.actions.account.rebuild import NO_USER
from stripe_integrations.actions.account.stored import StoredCustomer
from stripe_integrations.actions.customers.snapshot import USER_KEY, token_of
from stripe_integrations.models import Customer, CustomerClaim, Pointer, Subscription
from stripe_integrations.models.child import Child
from stripe_integrations.models.difference import DifferenceKind, Suspicion
from stripe_integrations.models.fields import value_at

_SEPARATE_OBJECTS = frozenset(
    {
        "coupon",
        "discount",
        "payment_method",
        "plan",
        "price",
        "product",
        "promotion_code",
        "tax_rate",
    }
)
_OF_INDEX = frozenset({"created_shard"})

RECORD_OF_ERASED = "record of a customer that was erased"
RECORD_WITHOUT_POINTER = "record without pointer"
POINTER_WITHOUT_RECORD = "pointer without record"
CLAIM_WITHOUT_RECORD = "claim without record"
OTHER_OWNER = "record and pointer of different owners"
RECORD_WITHOUT_CLAIM = "record without claim"
OTHER_CLAIM = "record and claim of different customers"
DELETED = "deleted on Stripe"
UNKNOWN = "unknown to Stripe"


class Observed(NamedTuple):
    """A difference that was seen once.

    Parameters
    ----------
    kind : DifferenceKind
        How it differs.
    reason : str
        The names of fields, or what does not belong together.
    record_version : int or None
        The version of the record that differs; None where its state does not matter.
    """

    kind: DifferenceKind
    reason: str = ""
    record_version: int | None = None

    def confirms(self, suspicion: Suspicion) -> bool:
        """Return whether it is what was suspected, of the same record in the same version."""
        is_same = (self.kind, self.record_version) == (suspicion.kind, suspicion.record_version)
        is_other_link = self.kind is DifferenceKind.ORPHAN and self.reason != suspicion.reason
        return is_same and not is_other_link


def compare_customer(obj: Json, stored: StoredCustomer) -> Observed | None:
    """Return how a customer differs from what is stored of it; None where it does not.

    Parameters
    ----------
    obj : mapping
        Stripe's customer; a deleted one has ``deleted``; empty where Stripe does not know it.
    stored : StoredCustomer
        What is stored.
    """
    record = stored.record
    if record is None:
        return _compare_without_record(obj, stored.pointer)
    if not record.is_active:
        return None
    if not obj or obj.get("deleted"):
        return Observed(DifferenceKind.EXTRA, DELETED if obj else UNKNOWN, _version(record))
    if reason := _missing_link(record, stored):
        return Observed(DifferenceKind.ORPHAN, reason)
    values = Customer.values_of(obj)
    names = [name for name in values if name not in _OF_INDEX and _differs(record, name, values)]
    if names:
        return Observed(DifferenceKind.STALE, ", ".join(sorted(names)), _version(record))
    return None


def compare_subscription(obj: Json, record: Customer, stored: Child | None) -> Observed | None:
    """Return how a subscription differs from what is stored of it; None where it does not.

    Parameters
    ----------
    obj : mapping
        Stripe's subscription. One that lacks items may be stale.
    record : Customer
        The active record of its customer.
    stored : Child or None
        Its own record.
    """
    if stored is None:
        return Observed(DifferenceKind.MISSING, "", _version(record))
    if not stored.is_attached:
        return None
    if not Subscription.is_complete(obj):
        return Observed(DifferenceKind.STALE, "items")
    values = Subscription.values_of(obj)
    names = set(values)
    if stored.is_incomplete:
        names &= Subscription.REDUCED_FIELDS
    differing = [name for name in names if _differs(stored, name, values)]
    if differing:
        return Observed(DifferenceKind.STALE, ", ".join(sorted(differing)), _version(record))
    return None


def _compare_without_record(obj: Json, pointer: Pointer | None) -> Observed | None:
    if pointer:
        is_erased = pointer.is_erased
        return None if is_erased else Observed(DifferenceKind.ORPHAN, POINTER_WITHOUT_RECORD)
    if not obj or obj.get("deleted"):
        return None
    token = token_of(obj)
    is_ours = CustomerClaim.is_ours(token)
    return None if token and not is_ours else _compare_without_pointer(obj, is_ours=is_ours)


def _compare_without_pointer(obj: Json, *, is_ours: bool) -> Observed | None:
    user_id = value_at(obj, "metadata", USER_KEY)
    claim = CustomerClaim.read(user_id) if isinstance(user_id, str) and user_id else None
    if claim and claim.stripe_id == obj["id"]:
        return Observed(DifferenceKind.ORPHAN, CLAIM_WITHOUT_RECORD)
    if claim and claim.stripe_id:
        return Observed(DifferenceKind.DUPLICATE)
    if is_ours and not user_id:
        return Observed(DifferenceKind.MISSING, NO_USER)
    return Observed(DifferenceKind.MISSING) if is_ours or stores_unassigned() else None


def missing_pointer(pointer: Pointer | None, record_pk: str) -> str | None:
    """Return why a pointer does not lead to an active record; None where it does.

    Parameters
    ----------
    pointer : Pointer or None
        The pointer of the record's customer.
    record_pk : str
        The partition of the record.
    """
    if pointer is None:
        return RECORD_WITHOUT_POINTER
    if pointer.is_erased:
        return RECORD_OF_ERASED
    return None if pointer.owner.pk == record_pk else OTHER_OWNER


def _missing_link(record: Customer, stored: StoredCustomer) -> str | None:
    """What of an active customer does not belong together."""
    reason = missing_pointer(stored.pointer, record.pk)
    if reason or record.user_id is None:
        return reason
    if stored.claim is None:
        return RECORD_WITHOUT_CLAIM
    return None if stored.claim.stripe_id == record.stripe_id else OTHER_CLAIM


def _version(record: Customer) -> int:
    return int(record.version or 0)


def _differs(record: Customer | Child, name: str, values: Mapping[str, Any]) -> bool:
    return _comparable(getattr(record, name)) != _comparable(values[name])


def _comparable(value: object) -> object:
    """Reduce separate objects to their ids; null is as good as a missing key."""
    if isinstance(value, Mapping):
        if value.get("object") in _SEPARATE_OBJECTS and isinstance(value.get("id"), str):
            return value["id"]
        return {key: _comparable(entry) for key, entry in value.items() if entry is not None}
    if isinstance(value, list | tuple):
        return [_comparable(entry) for entry in value]
    return value
