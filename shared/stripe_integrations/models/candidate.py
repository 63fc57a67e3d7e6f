"""Candidates: unassigned customers whose metadata names a user, as a run has seen them.

The metadata is read again before the user gets the customer, so that a candidate contains no id of
a user: its key groups the candidates of each user by a digest.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from hashlib import sha256

from pynamodb.attributes import TTLAttribute
from pynamodb.exceptions import PutError

from stripe_integrations.context import current
from stripe_integrations.models.fields import Text, required
from stripe_integrations.models.keys import run_key
from stripe_integrations.models.table import Record, unavailable

_PREFIX = "CANDIDATE#"
CANDIDATE_RETENTION = timedelta(days=30)


class Candidate(Record, discriminator="Candidate"):
    """An unassigned customer that may be assigned to the user whom its metadata names."""

    stripe_id = required(Text())
    expires_at = TTLAttribute()

    @classmethod
    def store(cls, run_id: str, user_id: str, stripe_id: str) -> None:
        """Store a candidate of a run; a repeated one changes nothing."""
        candidate = cls(
            run_key(run_id),
            f"{_PREFIX}{digest_of(user_id)}#{stripe_id}",
            stripe_id=stripe_id,
            expires_at=current().now() + CANDIDATE_RETENTION,
        )
        try:
            candidate.save()
        except PutError as error:
            raise unavailable(error) from error

    @classmethod
    def of_run(cls, run_id: str, digit: str, after: str | None = None) -> Iterator[Candidate]:
        """The candidates whose digest begins with a digit, those of a user one after the other.

        Parameters
        ----------
        run_id : str
            The run.
        digit : str
            A hexadecimal digit.
        after : str, optional
            The place of a candidate, after which they begin.
        """
        last = f"{_PREFIX}{after}" if after else None
        return cls.with_prefix(run_key(run_id), f"{_PREFIX}{digit}", last)

    @property
    def place(self) -> str:
        """The sort key without its prefix: ``<digest>#<customer id>``."""
        return str(self.sk).removeprefix(_PREFIX)

    @property
    def digest(self) -> str:
        """The digest of the user's id: 64 hexadecimal digits."""
        return self.place.partition("#")[0]


def digest_of(user_id: str) -> str:
    """Return the SHA-256 of a user's id, as 64 hexadecimal digits."""
    return sha256(user_id.encode(errors="surrogatepass")).hexdigest()
