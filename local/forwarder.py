"""Forwards a real Stripe account's events to a webhook on this machine, which Stripe can't reach.

It polls the list of events, so that `stripe listen` does not have to be installed.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat

import stripe

from local.background import repeated
from local.stripe_double import sign

POLL_SECONDS = 1.0


@contextmanager
def forward_events(
    client: stripe.StripeClient, deliver: Callable[[bytes, str], bool], secret: str
) -> Iterator[None]:
    """Deliver each event that is created during the block, signed, oldest first.

    Parameters
    ----------
    client : StripeClient
        A client of the account.
    deliver : callable
        POSTs a body with its signature and returns whether it was accepted.
    secret : str
        The webhook's signing secret.
    """
    # Stripe's times are whole seconds of another clock.
    since = int(time.time()) - 2
    delivered: set[str] = set()

    def forward() -> None:
        """Deliver what is new; one that was not accepted is delivered again."""
        try:
            listed = client.v1.events.list({"created": {"gte": since}, "limit": 100})
            for event in sorted(listed.auto_paging_iter(), key=lambda event: event.created):
                if event.id not in delivered:
                    body = str(event).encode()
                    if deliver(body, sign(body, secret, time.time())):
                        delivered.add(event.id)
        except (stripe.StripeError, OSError) as error:
            print(f"could not forward events, retrying: {type(error).__name__}")

    with repeated(forward, repeat(POLL_SECONDS)):
        yield
