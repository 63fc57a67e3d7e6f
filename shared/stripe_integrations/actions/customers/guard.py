"""The guard of a create: whether Stripe has a customer with the same e-mail that is no user's.

It comes before the claim: a claim that is stored has passed it. So a create that was interrupted is
resumed without it, as Stripe may have been called.
"""

from __future__ import annotations

from itertools import islice

from stripe_integrations import errors
from stripe_integrations.actions.customers.request import caller_error
from stripe_integrations.actions.customers.snapshot import CustomerSnapshot
from stripe_integrations.context import current
from stripe_integrations.models import CustomerClaim, Pointer

MAX_IDS = 100
"""The most customers that a refusal names; so many are examined at a time."""


def require_no_existing_customer(email: str) -> None:
    """Raise if Stripe has a customer with an e-mail that a user may have to adopt.

    Ignored are customers of users of this deployment, soft-deleted ones included; those that are
    being created for one; those that were erased, which no user can adopt; and those whose metadata
    names another deployment.

    Parameters
    ----------
    email : str
        As it is sent to Stripe, whose list distinguishes upper and lower case.

    Raises
    ------
    CustomerExistsError
        With the ids of the newest ones.
    InvalidFieldError
        Stripe refused the e-mail.

    Notes
    -----
    Follows https://docs.stripe.com/api/customers/list, which has customers that were just created;
    Stripe's search has not.
    """
    listed = map(CustomerSnapshot.from_fetch, current().stripe.list_customers(email=email))
    try:
        while batch := list(islice(listed, MAX_IDS)):
            existing = _without_user(batch)
            if existing:
                raise errors.CustomerExistsError(
                    "Stripe has a customer with this e-mail already", existing
                )
    except errors.StripeRefusedError as error:
        raise caller_error(error) from None


def _without_user(customers: list[CustomerSnapshot]) -> list[str]:
    """The ids of those customers that are no user's of any deployment, and were not erased."""
    candidates = [c for c in customers if not c.token or CustomerClaim.is_ours(c.token)]
    pointers = Pointer.read_all(customer.stripe_id for customer in candidates)
    recorded = {i for i, pointer in pointers.items() if pointer.user_id or pointer.is_erased}
    # Claims are read after the pointers: a create may store its pointer in between.
    return [
        customer.stripe_id
        for customer in candidates
        if customer.stripe_id not in recorded and not customer.is_claimed()
    ]
