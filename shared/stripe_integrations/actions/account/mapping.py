"""The mapping of users to customers, which a run stages before it walks the account.

Each row becomes the user's claim and the customer's pointer, in one transaction. So a second row of
a user or of a customer is a conflict, and a create that finds such a claim stores its customer. The
record is stored when the walk reads the customer. At the end, the customers of rows that no list
had are retrieved: each is stored, or its claim and pointer are deleted.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import NamedTuple

from pynamodb.transactions import TransactWrite

from stripe_integrations import errors
from stripe_integrations.actions.account.backfill import write_customers
from stripe_integrations.actions.account.page import Finding, Page, Result, unless_unreadable
from stripe_integrations.actions.customers.assign import remove_assignment
from stripe_integrations.actions.customers.refresh import refresh_until_written, retrieve_if_known
from stripe_integrations.actions.customers.snapshot import names_other_owner
from stripe_integrations.context import current
from stripe_integrations.models import CustomerClaim, Owner, Pointer, read_customer
from stripe_integrations.models.claim import new_token
from stripe_integrations.models.metadata_update import MetadataUpdate
from stripe_integrations.models.observation import Observation
from stripe_integrations.models.retry import retry_on_conflict
from stripe_integrations.models.run import Run
from stripe_integrations.models.table import ConditionFailedError, stale_if_changed, transact
from stripe_integrations.models.window import WalkedList, Window

_CUSTOMER_ID = re.compile(r"cus_[A-Za-z0-9]{1,251}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff]")
"""Also a byte order mark within the file, and half of a surrogate pair, which is no character."""
_COLUMNS = ["user_id", "stripe_id"]
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_NO_OBJECT = "is not an object with user_id and stripe_id"
_LINE_BYTES = 16_384
"""A line that is longer is refused: a row needs at most 500 characters and an id."""
_ROWS = 100
"""How many rows are a page."""


class Row(NamedTuple):
    """A user, and the Stripe customer that the user gets."""

    user_id: str
    stripe_id: str


class RefusedRow(NamedTuple):
    """A row that is invalid.

    Parameters
    ----------
    place : int
        The byte at which it begins in a file; its number, from 1, in a list.
    reason : str
        Why it is invalid, without its values.
    """

    place: int
    reason: str


def process_rows(window: Window, run: Run) -> Page:
    """Stage the next rows of a run's mapping, or look up those whose customer no list had.

    Returns
    -------
    Page
        The rows; its cursor is the byte at which the next one begins, None at the end of the file.

    Raises
    ------
    MappingRefusedError
        The header of a CSV file is missing, or has other columns.
    StorageError
        S3 did not return the file.
    """
    page = Page([], Observation.of_event(int(current().clock())))
    is_staged = window.walked_list is WalkedList.MAPPING
    rows = read_rows(str(run.mapping), window.offset or 0)
    for row, next_offset in islice(rows, _ROWS):
        page.cursor = next_offset
        if isinstance(row, Row):
            process = partial(_process_row, run, row, is_staged=is_staged)
            page.note(unless_unreadable(row.stripe_id, process))
        elif row and is_staged:
            page.note(Finding(f"byte {row.place}", Result.REFUSED, row.reason))
    return page


def _process_row(run: Run, row: Row, *, is_staged: bool) -> Result | Finding:
    if is_staged:
        return stage(run, row) or Result.STAGED
    return resolve_row(run, row) or Result.UNCHANGED


def read_rows(key: str, offset: int = 0) -> Iterator[tuple[Row | RefusedRow | None, int]]:
    """Read the rows of a file in the bucket, each with the offset of the next one.

    A file ``….csv`` has the header ``user_id,stripe_id``, in any order; every other file has JSON
    lines, each ``{"user_id": …, "stripe_id": …}``. Both are UTF-8. An empty line is None.

    Raises
    ------
    MappingRefusedError
        The header of a CSV file is missing, or has other columns.
    StorageError
        S3 did not return the file.
    """
    parse: Callable[[int, bytes], Row | RefusedRow | None] = _row_of_json
    if key.endswith(".csv"):
        header, first = next(current().read_lines(key, 0), (b"", 0))
        parse = partial(_row_of_csv, _columns(header))
        offset = max(offset, first)
    for line, next_offset in current().read_lines(key, offset):
        if len(line) > _LINE_BYTES:
            yield RefusedRow(offset, f"has over {_LINE_BYTES} bytes"), next_offset
        else:
            yield parse(offset, line), next_offset
        offset = next_offset


def _columns(header: bytes) -> list[str]:
    columns = _cells(header.removeprefix(_BYTE_ORDER_MARK))
    if columns is None or sorted(columns) != sorted(_COLUMNS):
        raise errors.MappingRefusedError("the mapping needs the header user_id,stripe_id")
    return columns


def _row_of_csv(columns: list[str], place: int, line: bytes) -> Row | RefusedRow | None:
    cells = _cells(line)
    if cells == []:
        return None
    if cells is None or len(cells) != len(columns):
        return RefusedRow(place, "is not two values in UTF-8")
    row = dict(zip(columns, cells, strict=True))
    return checked(place, *(row[name] for name in _COLUMNS))


def _row_of_json(place: int, line: bytes) -> Row | RefusedRow | None:
    if not line.strip():
        return None
    try:
        text = (line if place else line.removeprefix(_BYTE_ORDER_MARK)).decode()
        pairs = json.loads(text, object_pairs_hook=tuple)  # a list is no object
        row = dict(pairs) if isinstance(pairs, tuple) else {}
    except (RecursionError, TypeError, ValueError):
        return RefusedRow(place, _NO_OBJECT)
    if len(pairs) == len(row) and row.keys() == set(_COLUMNS):
        return checked(place, *(row[name] for name in _COLUMNS))
    return RefusedRow(place, _NO_OBJECT)


def checked(place: int, user_id: object, stripe_id: object) -> Row | RefusedRow:
    """Return a row, or why it is refused. Values are taken as they are written."""
    if not isinstance(user_id, str) or not user_id:
        return RefusedRow(place, "user_id is empty, or no text")
    if len(user_id) > Pointer.MAX_USER_ID_LENGTH:
        return RefusedRow(place, f"user_id has over {Pointer.MAX_USER_ID_LENGTH} characters")
    if _CONTROL.search(user_id) or user_id != user_id.strip():
        return RefusedRow(place, "user_id has control characters, or spaces around it")
    if not isinstance(stripe_id, str) or not _CUSTOMER_ID.fullmatch(stripe_id):
        return RefusedRow(place, "stripe_id is not the id of a Stripe customer")
    return Row(user_id, stripe_id)


def _cells(line: bytes) -> list[str] | None:
    try:
        return next(csv.reader([line.decode().rstrip("\r\n")], strict=True), [])
    except (UnicodeDecodeError, csv.Error):
        return None


# ---- staging


def stage(run: Run, row: Row) -> Finding | None:
    """Store a user's claim and the pointer of the customer, whose record is not stored yet.

    Returns
    -------
    Finding or None
        Why the row is not taken: a conflict with what is stored, or with an earlier row.

    Raises
    ------
    StripeError
        Some children of an unassigned customer did not fit into the transaction that moved it, and
        Stripe did not return them.
    """

    def attempt(_: int) -> Finding | None:
        return _stage(run, row)

    return retry_on_conflict(attempt)


def _stage(run: Run, row: Row) -> Finding | None:
    user_id, stripe_id = row
    replacement = CustomerClaim.assigned(user_id, stripe_id, new_token(), None, run.run_id)
    owner = Owner(row.user_id, row.stripe_id)
    pointer = Pointer.to(owner, replacement.pointer.token, run_id=run.run_id)

    def is_free(transaction: TransactWrite) -> None:
        # An erasure may be deleting it on Stripe.
        MetadataUpdate.check_is_free(transaction, stripe_id)

    def compose(transaction: TransactWrite) -> None:
        replacement.add_to(transaction)
        pointer.create_in(transaction)
        is_free(transaction)

    try:
        transact(compose)
    except ConditionFailedError as error:
        claim, known = error.old_item(replacement.pointer), error.old_item(pointer)
    else:
        return None
    if claim:
        is_same = claim.stripe_id == row.stripe_id
        return None if is_same else _conflict(row, _reason_of_claim(claim))
    if known is None:
        raise errors.StaleRecordError("the claim or the pointer was deleted in the meantime")
    if known.is_erased or known.user_id is not None:
        return _conflict(row, _reason_of_pointer(known))
    record = read_customer(known.owner)
    if record is None:
        raise errors.StaleRecordError("the customer is not visible yet")
    if not record.is_active:
        return _conflict(row, "Stripe has deleted the customer")
    if names_other_owner(record.metadata, row.user_id):
        return _conflict(row, "its metadata names another owner")
    is_whole = record.can_be_moved_whole
    record.drop_excess_children()
    with stale_if_changed("the customer was changed in the meantime"):
        moved = record.move_to(
            owner, [replacement.add_to, pointer.assign_in, is_free], run_id=run.run_id
        )
    if not is_whole:
        refresh_until_written(moved)
    return None


def _reason_of_claim(claim: CustomerClaim) -> str:
    if claim.is_creating:
        return "a customer of this user is being created"
    return "this user has another customer"


def _reason_of_pointer(pointer: Pointer) -> str:
    if pointer.is_erased:
        return "the customer was erased"
    return "another user has the customer"


def _conflict(row: Row, reason: str) -> Finding:
    return Finding(row.stripe_id, Result.CONFLICT, reason)


# ---- after the walk


def resolve_row(run: Run, row: Row) -> Finding | None:
    """Store the customer of a row that no list had, or delete the row's claim and pointer.

    Stripe does not list the customers of test clocks, and those that it has deleted.

    Returns
    -------
    Finding or None
        Why the row was not taken after all.
    """

    def attempt(_: int) -> Finding | None:
        pointer = Pointer.read(row.stripe_id)
        # By this run, or by an earlier one that was stopped.
        is_staged = pointer and pointer.user_id == row.user_id and pointer.run_id
        if pointer is None or not is_staged or read_customer(pointer.owner):
            return None
        return _look_up(run, row, pointer)

    return retry_on_conflict(attempt)


def _look_up(run: Run, row: Row, pointer: Pointer) -> Finding | None:
    sent = current().clock()
    stripe_customer = retrieve_if_known(row.stripe_id)
    if not stripe_customer or stripe_customer.get("deleted"):
        remove_assignment(pointer)
        return _conflict(row, "Stripe has no such customer, or has deleted it")
    page = Page([stripe_customer], Observation.of_fetch(sent, received=current().clock()))
    write_customers(page, run)
    return next(iter(page.findings), None)
