"""``python -m local.stripe_double``: serve the double over HTTP until SIGINT or SIGTERM."""

from __future__ import annotations

import argparse
import random
import signal
import threading

from .double import LoggedRequest, StripeDouble
from .http_server import StripeDoubleServer
from .rate_limits import ENDPOINT_RATE, LIVE_RATE, SANDBOX_RATE


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    arguments = _arguments()
    chance = None if arguments.seed is None else random.Random(arguments.seed)
    double = StripeDouble(random=chance, livemode=arguments.livemode)
    double.api_keys = set(arguments.api_key) or None
    double.webhooks.first_backoff = arguments.first_backoff
    if arguments.rate_limits:
        double.rate_limits.enforce(LIVE_RATE if arguments.livemode else SANDBOX_RATE)
    if arguments.webhook_url:
        double.webhooks.add_endpoint(arguments.webhook_url, arguments.webhook_secret)
    on_request = _print if arguments.log else None
    stopped = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stopped.set())
    with StripeDoubleServer(double, arguments.host, arguments.port, on_request) as server:
        print(f"Stripe double listening on {server.url}", flush=True)
        stopped.wait()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local.stripe_double", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=12111, help="0 for a free port")
    parser.add_argument("--webhook-url", help="URL to which events are POSTed")
    parser.add_argument(
        "--webhook-secret",
        action="append",
        default=[],
        help="signing secret of the webhook; repeat it for previous secrets",
    )
    parser.add_argument(
        "--first-backoff",
        type=float,
        default=1.0,
        help="seconds before the first retry of a delivery; doubles each time (default 1)",
    )
    parser.add_argument(
        "--api-key", action="append", default=[], help="accept this key only; may be repeated"
    )
    parser.add_argument("--livemode", action="store_true", help="an account in live mode")
    parser.add_argument(
        "--rate-limits",
        action="store_true",
        help=f"Stripe's limits: {SANDBOX_RATE} requests/s ({LIVE_RATE} in live mode), "
        f"{ENDPOINT_RATE} of each endpoint",
    )
    parser.add_argument("--seed", type=int, help="seed of all ids")
    parser.add_argument("--log", action="store_true", help="print a line for each request")
    arguments = parser.parse_args()
    if arguments.webhook_url and not arguments.webhook_secret:
        parser.error("--webhook-url needs --webhook-secret")
    return arguments


def _print(request: LoggedRequest) -> None:
    replayed = " (replayed)" if request.replayed else ""
    print(f"{request.method} {request.path} {request.status}{replayed}", flush=True)


if __name__ == "__main__":
    main()
