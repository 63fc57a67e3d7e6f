"""Brings the real Stripe's events to a webhook on this machine, which Stripe can't reach.

Reads the list of events, as `stripe listen` does for who has it installed.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import stripe

from local.stripe_double import sign

POLL_SECONDS = 1.0


@contextmanager
def forward_events(
    client: stripe.StripeClient, deliver: Callable[[bytes, str], bool], secret: str
) -> Iterator[None]:
    """Deliver every event that comes to be during the block, signed, oldest first.

    Parameters
    ----------
    client : StripeClient
        Whose events.
    deliver : callable
        Posts a body with its signature, and tells whether it was taken.
    secret : str
        The webhook's signing secret.
    """
    ended = threading.Event()
    # Stripe stamps whole seconds, and its clock is not ours.
    since = int(time.time()) - 2
    thread = threading.Thread(target=poll_events, args=(client, deliver, secret, since, ended))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def poll_events(
    client: stripe.StripeClient,
    deliver: Callable[[bytes, str], bool],
    secret: str,
    since: int,
    ended: threading.Event,
) -> None:
    """Deliver events from `since` on until `ended`; one that was not taken is delivered again."""
    delivered: set[str] = set()
    while not ended.wait(POLL_SECONDS):
        try:
            listed = client.v1.events.list({"created": {"gte": since}, "limit": 100})
            for event in sorted(listed.auto_paging_iter(), key=lambda event: event.created):
                if event.id not in delivered:
                    body = str(event).encode()
                    if deliver(body, sign(body, secret, time.time())):
                        delivered.add(event.id)
        except (stripe.StripeError, OSError) as error:
            print(f"events are not forward_events at the moment: {type(error).__name__}")
