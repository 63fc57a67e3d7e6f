"""Writes everything that a table has of one user, as JSON lines: a claim, records, events.

    python -m tools.export_user --table TABLE --user USER_ID > user.jsonl

Credentials, region and AWS_ENDPOINT_URL are configured as for the AWS CLI. An interrupted export is
incomplete: its exit status is not 0.
"""

from __future__ import annotations

import argparse
import json
import sys

from stripe_integrations.actions import StripeCustomer, User
from stripe_integrations.config import Settings
from stripe_integrations.context import Context, use
from stripe_integrations.errors import StripeIntegrationsError


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns 0 if everything was written."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.export_user", description="Write all items of one user."
    )
    parser.add_argument("--table", required=True, metavar="NAME")
    parser.add_argument("--user", required=True, metavar="USER_ID")
    given = parser.parse_args(arguments)
    try:
        with use(Context(Settings(table_name=given.table))):
            for item in StripeCustomer.export(User(given.user)):
                print(json.dumps(item))
    except StripeIntegrationsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
