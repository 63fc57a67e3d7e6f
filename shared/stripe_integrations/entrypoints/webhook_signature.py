"""Verifies the signature of Stripe's webhooks, with the standard library alone.

Follows https://docs.stripe.com/webhooks#verify-manually and accepts exactly what Stripe's library
accepts; that library is not imported, since that would slow every cold start.
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
        The raw body, as it was sent.
    header : str or None
        The ``Stripe-Signature`` header: ``t=SECONDS,v1=HEX[,v1=HEX]``.
    secrets : iterable of str
        Signing secrets of the endpoint; one of them must match.
    now : float
        Unix time in seconds.

    Raises
    ------
    SignatureVerificationError
        The header is missing or malformed, no signature matches, or it is older than 300 s.
    """
    if not header:
        raise SignatureVerificationError("the Stripe-Signature header is missing")
    timestamp, signatures = _parse(header)
    try:
        body.decode()
    except UnicodeDecodeError:
        raise SignatureVerificationError("the body is not UTF-8") from None
    signed = b"%d.%s" % (timestamp, body)
    if not any(_matches(signed, secret, signatures) for secret in secrets):
        raise SignatureVerificationError("no signature matches the body")
    if timestamp < now - TOLERANCE_SECONDS:
        raise SignatureVerificationError("the signature is too old")


def _parse(header: str) -> tuple[int, list[str]]:
    pairs = [part.split("=", 2) for part in header.split(",")]
    try:
        timestamp = int([pair[1] for pair in pairs if pair[0] == "t"][0])  # noqa: RUF015 - all of them count
        signatures = [pair[1] for pair in pairs if pair[0] == "v1"]
    except (IndexError, ValueError):
        raise SignatureVerificationError("the Stripe-Signature header is malformed") from None
    return timestamp, signatures


def _matches(signed: bytes, secret: str, signatures: list[str]) -> bool:
    expected = hmac.digest(secret.encode(), signed, "sha256").hex()
    try:
        return any(hmac.compare_digest(expected, signature) for signature in signatures)
    except TypeError:  # it compares only ASCII text
        return False
