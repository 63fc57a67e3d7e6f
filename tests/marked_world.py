"""A world full of marks, on a database of its own, and all that its functions put out."""

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
from simulation.database import Answer, Database
from simulation.database.transport import answering
from simulation.deployment import TABLE_NAME, table_definition
from stripe_integrations import observability
from stripe_integrations.context import Context, use
from stripe_integrations.models.table import Record
from stripe_integrations.observability import logger
from tests.marked import card_fields, customer_fields, mark, method_fields, user_id
from tests.world import World

Json = dict[str, Any]

API_KEY = f"sk_test_{mark('API key')}"
OLD_SECRET = f"whsec_{mark('old webhook secret')}"
SECRET = f"whsec_{mark('webhook secret')}"

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "nobody",
    "AWS_SECRET_ACCESS_KEY": "nothing",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_REGION": "eu-west-1",
}


class MarkedWorld(World):
    """The product with a database of its own, keys that are marked, and marked people.

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
        """The surroundings of one more process, which sends its metrics as on AWS."""
        context = super().new_context()
        context.measure = observability.measure
        return context

    def new_database(self) -> Database:
        """An empty table."""
        database = Database(lambda: self.time)
        database.request("CreateTable", table_definition())
        return database

    def answer(self, operation: str, body: Json) -> Answer:
        """Answer a request to DynamoDB."""
        return self.database.request(operation, body)

    def furnish(self, name: str) -> str:
        """Let a person have a customer with cards and a subscription, marked all over; its id."""
        created = self.create(user_id(name), **customer_fields(name))
        assert created["statusCode"] == 201, created
        stripe_id = str(created["json"]["stripe_id"])
        fields = card_fields(name)
        self.stripe.add_token(f"tok_{name}", TestCard("visa", fields.pop("last4"), fields=fields))
        self.ask("POST", f"/v1/customers/{stripe_id}/sources", {"source": f"tok_{name}"})
        method = self.ask(
            "POST",
            "/v1/payment_methods",
            {"type": "card", "card": {"token": f"tok_{name}"}, **method_fields(name)},
        )["id"]
        self.ask("POST", f"/v1/payment_methods/{method}/attach", {"customer": stripe_id})
        price = {"currency": "usd", "unit_amount": 500, "recurring": {"interval": "month"}}
        self.ask(
            "POST",
            "/v1/subscriptions",
            {
                "customer": stripe_id,
                "items": [{"price": self.ask("POST", "/v1/prices", _named(price, name))["id"]}],
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
        """How everything stands now, to come back to."""
        return Saved(self)


def _named(price: Json, name: str) -> Json:
    return {**price, "product_data": {"name": mark(f"plan of {name}")}}


class Saved:
    """How a world stood at one moment."""

    def __init__(self, world: MarkedWorld) -> None:
        self._world = world
        self._time = world.time
        self._random = world.random.getstate()
        self._items = world.database.request("Scan", {"TableName": TABLE_NAME}).body["Items"]
        keeper = _Keeper(world.stripe)
        self._stripe, self._kept = keeper.written, keeper.kept

    def restore(self) -> None:
        """Bring the world back to that moment, in a process that has just begun."""
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
    """Writes a Stripe double down, many times faster to be read than to be copied.

    What can't be written, or never changes, is kept as it is.
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
    """Let a world be the one that the product is in."""
    for name, value in CREDENTIALS.items():
        os.environ.setdefault(name, value)
    with use(world.context):
        client = Record.connection().client
        with answering(client, world.answer):
            yield world


class Output:
    """Everything that functions put out beside their answers, as it would come to CloudWatch.

    Logs of libraries count as far as Lambda lets them through: its handler is the root logger's,
    whose level is the usual one as long as the function's log format is text.
    """

    def __init__(self) -> None:
        self.stream = io.StringIO()

    def add(self, text: str) -> None:
        """Take what comes another way."""
        self.stream.write(text + "\n")

    def add_failure(self, error: BaseException) -> None:
        """Take an exception that has left a function, as Lambda's runtime would print it."""
        self.add("".join(traceback.format_exception(error)))
        self.add(repr(error))

    def taken(self) -> str:
        """All of it; from now on what comes next."""
        text = self.stream.getvalue()
        self.stream.seek(0)
        self.stream.truncate()
        return text

    @contextmanager
    def captured(self) -> Iterator[Output]:
        """Take what is put out inside the block."""
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
