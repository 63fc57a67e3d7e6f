"""``make invoke``: invoke a function of the running local cloud with a file of events/."""

import argparse
import base64
import json
import sys
import time
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from local.cloud import ROOT, CloudError
from local.running import FUNCTIONS, RunningCloud, running_cloud
from local.stripe_double import sign

EVENTS = ROOT / "events"

EXAMPLE_CUSTOMER = "cus_ExampleJenny01"
"""The customer in the examples, replaced by the one that create_customer.json creates."""

NEED_CUSTOMER = (
    "adopt_customer",
    "apply_event",
    "erase_customer",
    "get_customer",
    "link_customer",
    "soft_delete_customer",
    "sync_customer",
    "update_customer",
)
"""The functions whose examples name a customer, or its user."""

NEED_SWEEP = ("walk_account",)
"""The functions whose examples need a sweep of Stripe's events."""

Event = dict[str, Any]


class UsageError(Exception):
    """The function or the file can't be used; the message says what can."""


def event_for(cloud: RunningCloud, function: str, file: str = "") -> Event:
    """Return the event with which a function is to be invoked.

    An example of events/ succeeds whenever it is used: what it needs is created first. Any other
    event is passed on as it is, but that of a webhook is always signed, since a signature is valid
    for five minutes.

    Parameters
    ----------
    cloud : RunningCloud
    function : str
        One of `FUNCTIONS`.
    file : str
        The path of a file with an event; by default, the function's example.

    Raises
    ------
    UsageError
        There is no such function, or the file has no event.
    CloudError
        What the example needs could not be created.
    """
    if function not in FUNCTIONS:
        problem = f"There is no function {function!r}." if function else "FUNCTION is missing."
        raise UsageError(f"{problem} The functions are {', '.join(FUNCTIONS)}.")
    example = EVENTS / f"{function}.json"
    path = Path(file) if file else example
    event = read(path)
    if path.resolve() == example and function in NEED_CUSTOMER:
        event = with_customer_id(event, create_example_customer(cloud))
        if function == "apply_event":
            cloud.invoke("link_customer", event_for(cloud, "link_customer"))
        if function == "link_customer":
            event["body"] = created_now(event["body"])
    if path.resolve() == example and function in NEED_SWEEP:
        cloud.invoke("reconcile_events", {})
    return signed(event, cloud.signing_secret) if function == "link_customer" else event


def read(path: Path) -> Event:
    """Return the event in a file."""
    try:
        event = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} can't be read as JSON: {error}") from None
    if not isinstance(event, dict):
        raise UsageError(f"{path} has no event: it must be a JSON object.")
    return event


def create_example_customer(cloud: RunningCloud) -> str:
    """Create the customer of the examples unless it exists, and return its id on Stripe."""
    response = cloud.invoke("create_customer", read(EVENTS / "create_customer.json"))
    if response["statusCode"] not in (200, 201):
        raise CloudError(f"The example's customer could not be created: {json.dumps(response)}")
    customer: str = json.loads(response["body"])["stripe_id"]
    return customer


def with_customer_id(event: Event, customer: str) -> Event:
    """Return an example that names this customer."""
    named: Event = json.loads(json.dumps(event).replace(EXAMPLE_CUSTOMER, customer))
    return named


def created_now(body: str) -> str:
    """Return the body of a webhook with a Stripe event of this moment: old ones are not applied."""
    return json.dumps({**json.loads(body), "created": int(time.time())})


def signed(event: Event, secret: str) -> Event:
    """Return the event of a webhook, signed now as Stripe does.

    Follows https://docs.stripe.com/webhooks/signature.
    """
    text = str(event.get("body") or "")
    body = base64.b64decode(text) if event.get("isBase64Encoded") else text.encode()
    given = event.get("headers") or {}
    headers = {name: value for name, value in given.items() if name.lower() != "stripe-signature"}
    headers["content-length"] = str(len(body))
    headers["stripe-signature"] = sign(body, secret, time.time())
    return {**event, "headers": headers}


def main() -> int:
    """Invoke the function and print its response; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make invoke", description=__doc__)
    parser.add_argument("--function", default="")
    parser.add_argument("--event", default="")
    options = parser.parse_args()
    try:
        cloud = running_cloud()
        response = cloud.invoke(options.function, event_for(cloud, options.function, options.event))
    except (UsageError, CloudError) as error:
        print(error, file=sys.stderr)
        return 1
    except (BotoCoreError, ClientError) as error:
        print(f"The local cloud that `make serve` runs is not usable: {error}", file=sys.stderr)
        return 1
    print(json.dumps(response))
    return 0


if __name__ == "__main__":
    sys.exit(main())
