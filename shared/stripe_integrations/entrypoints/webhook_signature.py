"""Verifies the signature of Stripe's webhooks, with the standard library alone.

Follows https://docs.stripe.com/webhooks#verify-manually and gives the verdict that Stripe's own
library gives; that library is not imported, since loading it would slow every cold start.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable

from stripe_integrations.errors import SignatureVerificationError

TOLERANCE_SECONDS = 300


def verify(body: bytes, header: str | None, secrets: Iterable[str], now: float) -> None:
    """Check that Stripe signed these bytes, and not long ago.

    Parameters
    ----------
    body : bytes
        The raw body, just as it was sent.
    header : str or None
        The ``Stripe-Signature`` header: ``t=SECONDS,v1=HEX[,v1=HEX]``.
    secrets : iterable of str
        Signing secrets of the endpoint; any of them will do.
    now : float
        Unix time in seconds.

    Raises
    ------
    SignatureVerificationError
        The header is missing or can't be read, no signature fits, or it is older than 300 s.
    """
    if not header:
        raise SignatureVerificationError("the Stripe-Signature header is missing")
    timestamp, signatures = _parse(header)
    try:
        body.decode()
    except UnicodeDecodeError:
        raise SignatureVerificationError("the body is not UTF-8") from None
    signed = b"%d.%s" % (timestamp, body)
    if not any(_fits(signed, secret, signatures) for secret in secrets):
        raise SignatureVerificationError("no signature fits the body")
    if timestamp < now - TOLERANCE_SECONDS:
        raise SignatureVerificationError("the signature is too old")


def _parse(header: str) -> tuple[int, list[str]]:
    pairs = [part.split("=", 2) for part in header.split(",")]
    try:
        timestamp = int([pair[1] for pair in pairs if pair[0] == "t"][0])  # noqa: RUF015 - all of them count
        signatures = [pair[1] for pair in pairs if pair[0] == "v1"]
    except (IndexError, ValueError):
        raise SignatureVerificationError("the Stripe-Signature header can't be read") from None
    return timestamp, signatures


def _fits(signed: bytes, secret: str, signatures: list[str]) -> bool:
    expected = hmac.digest(secret.encode(), signed, "sha256").hex()
    try:
        return any(hmac.compare_digest(expected, signature) for signature in signatures)
    except TypeError:  # it compares no text but ASCII
        return False
