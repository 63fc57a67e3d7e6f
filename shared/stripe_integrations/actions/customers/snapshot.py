"""A customer that Stripe has created for one of our users, recognized by its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from stripe_integrations.context import current
from stripe_integrations.limits import CLOCK_SKEW_SECONDS
from stripe_integrations.models import Customer, CustomerClaim, Owner, stored_kinds
from stripe_integrations.models.fields import value_at
from stripe_integrations.models.observation import Observation

Json = Mapping[str, Any]

USER_KEY = "stripe_integrations_user_id"
TOKEN_KEY = "stripe_integrations_token"  # noqa: S105 - the name of a metadata key
"""The keys of Stripe's metadata that identify our customers."""
_INITIAL_SECONDS = 300
"""Until this long after its creation, a customer is stored as one without children: events report
the ones that it gets."""


@dataclass(frozen=True)
class CustomerSnapshot:
    """A state of a customer that Stripe has created with a token of ours.

    Parameters
    ----------
    stripe_customer : mapping
        Stripe's customer.
    observation : Observation
        When it had this state.
    is_initial : bool
        Whether this is its state at its creation, with no children yet.
    """

    stripe_customer: Json = field(repr=False)
    observation: Observation
    is_initial: bool

    @classmethod
    def from_creation(cls, stripe_customer: Json) -> CustomerSnapshot:
        """From the response to the create call, or from customer.created.

        The response may be an old one that Stripe replays: it is observed in the second of the
        customer's creation, and no later. A customer that was created long ago may have children,
        so it is fetched.
        """
        created = created_second(stripe_customer)
        if not created:
            return cls.from_fetch(stripe_customer)
        is_initial = current().clock() - created <= _INITIAL_SECONDS
        return cls(stripe_customer, Observation.of_event(created), is_initial=is_initial)

    @classmethod
    def from_fetch(cls, stripe_customer: Json) -> CustomerSnapshot:
        """From a list or a fetch: the customer may have changed since its creation."""
        observation = Observation.of_fetch(created_second(stripe_customer), current().clock())
        return cls(stripe_customer, observation, is_initial=False)

    @property
    def stripe_id(self) -> str:
        """The customer's id."""
        stripe_id: str = self.stripe_customer["id"]
        return stripe_id

    @property
    def created(self) -> int:
        """When Stripe created it, in Unix seconds; 0 where it does not say."""
        return created_second(self.stripe_customer)

    @property
    def assigned(self) -> int:
        """When its user got it, in Unix seconds: see `assigned_second`."""
        return assigned_second(self.created, self.token)

    @property
    def user_id(self) -> str | None:
        """The user that it was created for; None where its metadata names none."""
        user_id = value_at(self.stripe_customer, "metadata", USER_KEY)
        return user_id if isinstance(user_id, str) and user_id else None

    @property
    def token(self) -> object:
        """The token that it was created with."""
        return token_of(self.stripe_customer)

    def is_for_claim(self, claim: CustomerClaim) -> bool:
        """Return whether Stripe created it for this claim, with any of its tokens."""
        return claim.is_creating and self.token in claim.tokens

    def is_for_current_token(self, claim: CustomerClaim) -> bool:
        """Return whether it was created with the claim's current token, and no former one."""
        return self.token == claim.token

    def is_claimed(self) -> bool:
        """Return whether the user in its metadata has it, or a claim that it was created for."""
        claim = CustomerClaim.read(self.user_id) if self.user_id else None
        return claim is not None and (claim.stripe_id == self.stripe_id or self.is_for_claim(claim))

    def values(self) -> dict[str, Any]:
        """The field values of its record."""
        return {**Customer.values_of(self.stripe_customer), **self.observation.as_fields()}

    def new_record(self, user_id: str) -> Customer:
        """Make its record, dated by when its user got it and not stored yet."""
        moment = datetime.fromtimestamp(self.assigned, UTC)
        return self.fill(Customer.new(Owner(user_id, self.stripe_id), moment))

    def fill(self, customer: Customer) -> Customer:
        """Set the field values of a record that is not stored yet."""
        values = self.values()
        if self.is_initial:
            values |= customer.listed(stored_kinds(), self.observation)
        for name, value in values.items():
            setattr(customer, name, value)
        return customer


def created_second(stripe_customer: Json) -> int:
    """When Stripe created a customer, in Unix seconds; 0 where it does not say."""
    created = stripe_customer.get("created")
    return created if isinstance(created, int) else 0


def assigned_second(created: int, token: object) -> int:
    """Return when a user got a customer, in Unix seconds.

    Parameters
    ----------
    created : int
        When Stripe created it, by Stripe's clock. Of a customer that was created for the user this
        is the answer.
    token : object
        Its token, which an adopted customer gets by our clock.
    """
    made = CustomerClaim.second_of(token)
    return made if made > created + CLOCK_SKEW_SECONDS else created


def carries_our_token(stripe_customer: Json) -> bool:
    """Return whether this deployment created a customer, by the token in its metadata.

    Where the deployment's name has changed since, the user's claim has the token.
    """
    token, user_id = token_of(stripe_customer), value_at(stripe_customer, "metadata", USER_KEY)
    if not isinstance(token, str):
        return False
    if CustomerClaim.is_ours(token):
        return True
    claim = CustomerClaim.read(user_id) if isinstance(user_id, str) and user_id else None
    return claim is not None and token in claim.tokens


def names_other_owner(metadata: object, user_id: str | None) -> bool:
    """Return whether a customer's metadata names another user, or another deployment.

    Parameters
    ----------
    metadata : object
        Stripe's metadata of the customer.
    user_id : str or None
        The user who is to have it; None for none.
    """
    token = value_at(metadata, TOKEN_KEY)
    is_ours = CustomerClaim.is_ours(token) and value_at(metadata, USER_KEY) == user_id
    return bool(token) and not is_ours


def token_of(stripe_customer: Json) -> object:
    """The token that a customer was created with, if it was one of ours."""
    return value_at(stripe_customer, "metadata", TOKEN_KEY)
