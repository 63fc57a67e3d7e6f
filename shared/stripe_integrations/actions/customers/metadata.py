"""A customer's metadata on Stripe: the user and the token, as its pointer has them."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from stripe_integrations import errors
from stripe_integrations.actions.customers.refresh import values_of_update
from stripe_integrations.actions.customers.snapshot import TOKEN_KEY, USER_KEY
from stripe_integrations.context import current
from stripe_integrations.models import CustomerClaim, Pointer
from stripe_integrations.models.fields import value_at
from stripe_integrations.models.metadata_update import MetadataUpdate
from stripe_integrations.observability import error_log_fields, logger


def write_metadata(update: MetadataUpdate) -> None:
    """Write what the pointer has, if it names a user, and delete the work item.

    The metadata of a customer that a run gave to its user is first written by a run. Until then,
    the work item is one of an interrupted run or release, and nothing is written.

    What Stripe refuses, such as a 51st key, is logged and not attempted again: the customer is the
    user's without it, but a rebuild after a restore does not find it.

    Parameters
    ----------
    update : MetadataUpdate
        The work item, claimed by this worker.

    Raises
    ------
    StripeError
        Stripe did not respond, refused the API key, or does not know the customer, as with the key
        of another account: the schedule attempts it again.
    """
    pointer = Pointer.read(update.stripe_id)
    if pointer and pointer.user_id is not None and not pointer.lacks_metadata:
        try:
            set_metadata(pointer)
        except errors.StripeRefusedError as error:
            if error.status == HTTPStatus.NOT_FOUND and not _is_deleted(update.stripe_id):
                raise
            logger.warning(
                "metadata refused",
                extra={"stripe_customer_id": update.stripe_id, **error_log_fields(error)},
            )
    update.finish()


def complete_metadata(update: MetadataUpdate) -> None:
    """Write the metadata that an earlier call has left due.

    Another deployment may have adopted the customer since, or this one may have been about to
    release it to that one: its metadata is replaced only if the adoption was to take it over.

    Parameters
    ----------
    update : MetadataUpdate
        The work item, claimed by this worker.

    Raises
    ------
    StripeError
        As in `write_metadata`.
    """
    if update.take_over or not _names_other_deployment(update.stripe_id):
        write_metadata(update)
        return
    logger.warning(
        "metadata not replaced: it names another deployment",
        extra={"stripe_customer_id": update.stripe_id},
    )
    update.finish()


def _names_other_deployment(stripe_id: str) -> bool:
    token = value_at(current().stripe.retrieve_customer(stripe_id), "metadata", TOKEN_KEY)
    return bool(token) and not CustomerClaim.is_ours(token)


def _is_deleted(stripe_id: str) -> bool:
    return bool(current().stripe.retrieve_customer(stripe_id).get("deleted"))


def set_metadata(pointer: Pointer) -> dict[str, Any]:
    """Write the user and the token of a pointer to the metadata on Stripe.

    Returns
    -------
    dict
        The field values of the customer's record, as of `values_of_update`.

    Raises
    ------
    StripeError
        Stripe did not respond, or refused it.
    """
    metadata = {USER_KEY: pointer.user_id or "", TOKEN_KEY: pointer.token or ""}
    return _update(pointer.stripe_id, metadata)


def remove_metadata(
    stripe_id: str, stripe_customer: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Remove the keys of this deployment; does nothing where Stripe has deleted the customer.

    Parameters
    ----------
    stripe_id : str
        The customer.
    stripe_customer : mapping, optional
        Stripe's customer, if the caller has retrieved it.

    Returns
    -------
    dict
        As of `set_metadata`; empty if there is nothing to remove.

    Raises
    ------
    StripeError
        Stripe did not respond, or refused it. A 404 is not a deletion: with the key of another
        account everything is missing.
    """
    stripe_customer = stripe_customer or current().stripe.retrieve_customer(stripe_id)
    if CustomerClaim.is_ours(value_at(stripe_customer, "metadata", TOKEN_KEY)):
        return _update(stripe_id, {USER_KEY: "", TOKEN_KEY: ""})
    return {}


def _update(stripe_id: str, metadata: dict[str, str]) -> dict[str, Any]:
    key = f"{stripe_id}/{current().new_token()}"
    sent = current().clock()
    response = current().stripe.update_customer(stripe_id, {"metadata": metadata}, key)
    return values_of_update(response, key, sent)
