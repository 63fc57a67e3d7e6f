"""Reading what is stored of some Stripe customers, in few round trips."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from stripe_integrations import errors
from stripe_integrations.models import Customer, CustomerClaim, Pointer
from stripe_integrations.models.customer import read_items
from stripe_integrations.models.keys import customer_key, unassigned_key
from stripe_integrations.models.table import Record

Key = tuple[str, str]

_NO_PARTITIONS: Mapping[str, str] = MappingProxyType({})


@dataclass
class StoredCustomer:
    """What is stored of a Stripe customer.

    Parameters
    ----------
    pointer : Pointer or None
        Its pointer.
    record : Customer or None
        Its record, without children: an active one to which its pointer does not lead, or else the
        one to which it leads.
    claim : CustomerClaim or None
        The claim of the record's user.
    """

    pointer: Pointer | None = None
    record: Customer | None = None
    claim: CustomerClaim | None = None

    @property
    def is_erased(self) -> bool:
        """Whether the customer was erased: its pointer is a tombstone, and there is no record."""
        return self.record is None and self.pointer is not None and self.pointer.is_erased


def read_stored(
    customer_ids: Iterable[str], record_pks: Mapping[str, str] = _NO_PARTITIONS
) -> dict[str, StoredCustomer]:
    """Read what is stored of customers, strongly consistent.

    Parameters
    ----------
    customer_ids : iterable of str
        The customers.
    record_pks : mapping, optional
        By customer, the partition of a record to which its pointer may not lead.

    Returns
    -------
    dict
        By id; without customers of which a later release has written something.
    """
    ids = list(dict.fromkeys(customer_ids))
    pointer_keys = {stripe_id: Pointer.key_of(stripe_id) for stripe_id in ids}
    pointers = read_readable(pointer_keys.values())
    partitions: dict[str, list[str]] = {}
    for stripe_id, key in pointer_keys.items():
        pointer = pointers.get(key)
        led_to = pointer.owner.pk if isinstance(pointer, Pointer) else None
        known = dict.fromkeys((record_pks.get(stripe_id), led_to))
        partitions[stripe_id] = [pk for pk in known if pk]
    keys = {stripe_id: _keys(stripe_id, pks) for stripe_id, pks in partitions.items()}
    found = {**pointers, **read_readable(key for each in keys.values() for key in each)}
    return {
        stripe_id: _assemble(stripe_id, partitions[stripe_id], found)
        for stripe_id in ids
        if all(found.get(key, key) for key in (pointer_keys[stripe_id], *keys[stripe_id]))
    }


def read_one(customer_id: str, record_pk: str | None) -> StoredCustomer:
    """Read what is stored of one customer, as `read_stored` does.

    Raises
    ------
    NewerSchemaError
        A later release has written something of it.
    """
    partitions = {customer_id: record_pk} if record_pk else {}
    stored = read_stored([customer_id], partitions).get(customer_id)
    if stored is None:
        raise errors.NewerSchemaError(f"a later release has written a record of {customer_id}")
    return stored


def read_readable(keys: Iterable[Key]) -> dict[Key, Record | None]:
    """Read items; None for one that a later release has written."""
    wanted = list(dict.fromkeys(keys))
    try:
        return dict(read_items(wanted))
    except errors.NewerSchemaError:
        if len(wanted) == 1:
            return {wanted[0]: None}
    half = len(wanted) // 2
    return {**read_readable(wanted[:half]), **read_readable(wanted[half:])}


def _keys(stripe_id: str, pks: Iterable[str]) -> list[Key]:
    """The keys of a customer's records, and of the claims beside them."""
    keys = [(pk, customer_key(stripe_id)) for pk in pks]
    return [*keys, *(CustomerClaim.key_in(pk) for pk in pks if pk != unassigned_key(stripe_id))]


def _assemble(stripe_id: str, pks: list[str], found: Mapping[Key, Record | None]) -> StoredCustomer:
    pointer = found.get(Pointer.key_of(stripe_id))
    stored = StoredCustomer(pointer if isinstance(pointer, Pointer) else None)
    for pk in pks:
        record = found.get((pk, customer_key(stripe_id)))
        is_last = pk == pks[-1]
        if isinstance(record, Customer) and (record.is_active or is_last):
            claim = found.get(CustomerClaim.key_in(pk))
            stored.record = record
            stored.claim = claim if isinstance(claim, CustomerClaim) else None
            break
    return stored
