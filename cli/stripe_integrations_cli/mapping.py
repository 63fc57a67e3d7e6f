"""A file of users and their customers, checked before a run reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

from stripe_integrations.actions.account.mapping import RefusedRow, Row, read_rows
from stripe_integrations.context import current, use
from stripe_integrations_cli.errors import UsageError


@dataclass(frozen=True)
class CheckedMapping:
    """The rows of a mapping, by their validity.

    Parameters
    ----------
    rows : int
        Rows that are valid.
    refused : list of RefusedRow
        Rows that are invalid, with the byte at which each begins.
    repeated_users, repeated_customers : int
        How many users have several customers, and customers several users: the first row of each
        takes effect, the others are conflicts.
    """

    rows: int
    refused: list[RefusedRow]
    repeated_users: int
    repeated_customers: int

    @property
    def is_clean(self) -> bool:
        """Whether every row can take effect."""
        return not (self.refused or self.repeated_users or self.repeated_customers)


def check_mapping(path: Path) -> CheckedMapping:
    """Read a mapping, a CSV or JSON Lines file, as a run does.

    Raises
    ------
    UsageError
        The file can't be read, or its name has neither ending.
    """
    if path.suffix not in (".csv", ".jsonl"):
        raise UsageError("the name of a mapping ends in .csv or .jsonl")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from None

    def read_file(_: str, offset: int) -> Iterator[tuple[bytes, int]]:
        for line in BytesIO(content[offset:]):
            offset += len(line)
            yield line.removesuffix(b"\n"), offset

    with use(replace(current(), read_file=read_file)):
        parsed = [row for row, _ in read_rows(path.name) if row]
    rows = {row for row in parsed if isinstance(row, Row)}
    users = Counter(row.user_id for row in rows)
    customers = Counter(row.stripe_id for row in rows)
    return CheckedMapping(
        rows=sum(isinstance(row, Row) for row in parsed),
        refused=[row for row in parsed if isinstance(row, RefusedRow)],
        repeated_users=sum(count > 1 for count in users.values()),
        repeated_customers=sum(count > 1 for count in customers.values()),
    )
