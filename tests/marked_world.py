"""A world full of marks, on a database of its own, and the output of its functions."""

from __future__ import annotations

import io
import logging
import os
import pickle
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from types import FunctionType
from typing import Any

from local.stripe_double.double import StripeDouble
from local.stripe_double.params import Param
from local.stripe_double.tokens import TestCard
from simulation.database import Database, Response
from simulation.database.transport import responding
from simulation.deployment import TABLE_NAME, table_definition
from stripe_integrations import observability
from stripe_integrations.context import Context, use
from stripe_integrations.models.table import Record
from stripe_integrations.observability import logger
from tests.marked import card_fields, customer_fields, mark, method_fields, user_id
from tests.world import Json, World

API_KEY = f"sk_test_{mark('API key')}"
OLD_SECRET = f"whsec_{mark('old webhook secret')}"
SECRET = f"whsec_{mark('webhook secret')}"

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "marked",
    "AWS_SECRET_ACCESS_KEY": "marked",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_REGION": "eu-west-1",
}


class MarkedWorld(World):
    """The product with a database of its own, marked keys and marked users.

    Parameters
    ----------
    **settings
        Settings that differ.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            TABLE_NAME,
            **{"api_key": API_KEY, "webhook_secret": f"{OLD_SECRET} {SECRET}", **settings},
        )
        self.database = self.new_database()
        (endpoint,) = self.stripe.webhooks.endpoints.values()
        endpoint.secrets = [SECRET]

    def new_context(self) -> Context:
        """The context of one more process, which sends its metrics as on AWS."""
        context = super().new_context()
        context.measure = observability.measure
        return context

    def new_database(self) -> Database:
        """An empty table."""
        database = Database(lambda: self.time)
        database.request("CreateTable", table_definition())
        return database

    def respond(self, operation: str, body: Json) -> Response:
        """Handle a request to DynamoDB."""
        return self.database.request(operation, body)

    def furnish(self, name: str) -> str:
        """Create a user's customer with cards and a subscription, all marked; its id."""
        created = self.create(user_id(name), **customer_fields(name))
        assert created["statusCode"] == 201, created
        stripe_id = str(created["json"]["stripe_id"])
        fields = card_fields(name)
        self.stripe.add_token(f"tok_{name}", TestCard("visa", fields.pop("last4"), fields=fields))
        self.request("POST", f"/v1/customers/{stripe_id}/sources", {"source": f"tok_{name}"})
        self.attach_card(stripe_id, f"tok_{name}", **method_fields(name))
        price = {"currency": "usd", "unit_amount": 500, "recurring": {"interval": "month"}}
        self.request(
            "POST",
            "/v1/subscriptions",
            {
                "customer": stripe_id,
                "items": [{"price": self.request("POST", "/v1/prices", _named(price, name))["id"]}],
                "collection_method": "send_invoice",
                "days_until_due": 30,
                "description": mark(f"subscription of {name}"),
                "metadata": {
                    mark(f"subscription key of {name}"): mark(f"subscription metadata of {name}")
                },
            },
        )
        return stripe_id

    def saved(self) -> Saved:
        """The state as it is now, to be restored later."""
        return Saved(self)


def _named(price: Json, name: str) -> Json:
    return {**price, "product_data": {"name": mark(f"plan of {name}")}}


class Saved:
    """The state of a world at one moment."""

    def __init__(self, world: MarkedWorld) -> None:
        self._world = world
        self._time = world.time
        self._random = world.random.getstate()
        self._items = world.database.request("Scan", {"TableName": TABLE_NAME}).body["Items"]
        keeper = _Keeper(world.stripe)
        self._stripe, self._kept = keeper.written, keeper.kept

    def restore(self) -> None:
        """Restore the world to that moment, in a process that has just begun."""
        world = self._world
        world.time = self._time
        world.random.setstate(self._random)
        world.stripe = _Finder(self._stripe, self._kept).load()
        world.database = world.new_database()
        world.database.load(TABLE_NAME, self._items)
        world.dead_letters.clear()
        world.published.clear()
        world.context = world.new_context()


class _Keeper(pickle.Pickler):
    """Pickles a Stripe double: to unpickle one is many times faster than to copy it.

    What can't be pickled, or never changes, is shared.
    """

    def __init__(self, double: StripeDouble) -> None:
        self.kept: list[object] = []
        buffer = io.BytesIO()
        super().__init__(buffer, pickle.HIGHEST_PROTOCOL)
        self.dump(double)
        self.written = buffer.getvalue()

    def persistent_id(self, obj: object) -> int | None:
        if not isinstance(obj, FunctionType | Param):
            return None
        self.kept.append(obj)
        return len(self.kept) - 1


class _Finder(pickle.Unpickler):
    def __init__(self, written: bytes, kept: list[object]) -> None:
        super().__init__(io.BytesIO(written))
        self._kept = kept

    def persistent_load(self, number: int) -> object:
        return self._kept[number]


@contextmanager
def inhabited(world: MarkedWorld) -> Iterator[MarkedWorld]:
    """Let the product run in a world inside the block."""
    for name, value in CREDENTIALS.items():
        os.environ.setdefault(name, value)
    with use(world.context):
        client = Record.connection().client
        with responding(client, world.respond):
            yield world


class Output:
    """The output of functions beside their responses, as CloudWatch would get it.

    Logs of libraries count as far as Lambda passes them: its handler is the root logger's, whose
    level is the default one as long as the function's log format is text.
    """

    def __init__(self) -> None:
        self.stream = io.StringIO()

    def add(self, text: str) -> None:
        """Add output of another channel."""
        self.stream.write(text + "\n")

    def add_failure(self, error: BaseException) -> None:
        """Add an exception that has left a function, as Lambda's runtime would print it."""
        self.add("".join(traceback.format_exception(error)))
        self.add(repr(error))

    def taken(self) -> str:
        """All output since the last call."""
        text = self.stream.getvalue()
        self.stream.seek(0)
        self.stream.truncate()
        return text

    @contextmanager
    def captured(self) -> Iterator[Output]:
        """Capture the output inside the block."""
        root = logging.getLogger()
        lambdas = logging.StreamHandler(self.stream)
        functions = logger.registered_handler
        assert isinstance(functions, logging.StreamHandler)
        usual = functions.setStream(self.stream)
        level, own_level = root.level, logger.log_level
        root.addHandler(lambdas)
        root.setLevel(logging.WARNING)
        logger.setLevel(logging.DEBUG)
        logging.captureWarnings(True)
        try:
            with redirect_stdout(self.stream), redirect_stderr(self.stream):
                yield self
        finally:
            logging.captureWarnings(False)
            root.removeHandler(lambdas)
            root.setLevel(level)
            logger.setLevel(own_level)
            functions.setStream(usual or sys.stdout)
