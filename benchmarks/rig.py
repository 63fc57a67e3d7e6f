"""Processes of the built functions, and of what they are compared with."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from botocore import xform_name

from benchmarks import comparisons
from benchmarks.bundles import BUNDLES, WORK, build
from benchmarks.requests import Requests
from benchmarks.runtime import FunctionProcess
from benchmarks.services import API_KEY_NAME, WEBHOOK_SECRET_NAME, Services
from benchmarks.stage import timeout_milliseconds
from simulation.deployment import TABLE_NAME
from tools.template import ROOT

Json = dict[str, Any]

_COMPARISONS = WORK / "comparisons"
_BASE = WORK / "base"


@dataclass(frozen=True)
class Variant:
    """A function that is measured.

    Parameters
    ----------
    function : str
        The product's function, or the one whose work this does.
    kind : str
        ``product``, ``base`` for the product at an older commit, ``bare``, ``usual`` or
        ``usual, sam build``.
    """

    function: str
    kind: str = "product"

    @property
    def name(self) -> str:
        """The name in the results."""
        return self.function if self.kind == "product" else f"{self.kind}: {self.function}"

    @property
    def folder(self) -> Path:
        """The built function."""
        if self.kind == "product":
            return BUNDLES / self.function
        if self.kind == "base":
            return _BASE / self.function
        return _COMPARISONS / self.kind


def build_comparisons() -> None:
    """Build what the product's functions are compared with."""
    comparisons.build_by_bundle("bare", "function", _COMPARISONS / "bare")
    comparisons.build_by_bundle("usual", "function-stripe", _COMPARISONS / "usual")
    comparisons.build_by_sam("usual", "function-stripe", _COMPARISONS / "usual, sam build")


def build_base(commit: str) -> None:
    """Build the product's functions as they were at a commit."""
    with TemporaryDirectory() as scratch:
        archive = subprocess.run(
            ["git", "archive", commit], cwd=ROOT, check=True, capture_output=True
        )
        subprocess.run(["tar", "-x"], cwd=scratch, input=archive.stdout, check=True)
        build(Path(scratch), _BASE)


class Rig:
    """Starts processes of variants, and invokes them; use it within `running`.

    Parameters
    ----------
    customers : int
        How many invocations need a customer of their own.
    """

    def __init__(self, customers: int) -> None:
        self.requests = Requests(customers)
        self._services = Services(self.requests.stage)
        self._running = ExitStack()
        self._base_receiver: FunctionProcess | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Serve what the functions call, inside the block."""
        with self._services.running(), ExitStack() as self._running:
            yield

    def process(self, variant: Variant, *, traces_imports: bool = False) -> FunctionProcess:
        """Return a new process of a variant, which is not started yet."""
        url = self._services.url
        environment = {
            "AWS_ENDPOINT_URL": url,
            "STRIPE_API_BASE": url,
            "TABLE_NAME": TABLE_NAME,
            "DEPLOYMENT_NAME": "stripe-customers",
            "STRIPE_MODE": "test",
            "STRIPE_API_KEY_NAME": f"secretsmanager:{API_KEY_NAME}",
            "STRIPE_WEBHOOK_SECRET_NAME": f"secretsmanager:{WEBHOOK_SECRET_NAME}",
            "ERASURE_LOG_GROUP": "erasures",
            "REPORTS_BUCKET": "reports",
            "POWERTOOLS_SERVICE_NAME": "stripe-customers",
        }
        return FunctionProcess(
            variant.folder,
            environment,
            timeout_milliseconds(variant.function),
            traces_imports=traces_imports,
        )

    def event(self, variant: Variant) -> Json:
        """Return an event on which a variant does its work.

        A bare handler repeats the last calls of the product's function to DynamoDB, and gets the
        same responses: run that first.
        """
        if variant.kind == "bare":
            return self._repeat_calls()
        self._services.play_back(None)
        self._services.recorded.clear()
        if variant.kind.startswith("usual") and variant.function != "link_customer":
            return self._usual_event(variant.function)
        receive = self._receive_by_base if variant.kind == "base" else None
        return self.requests.event(variant.function, receive)

    def _receive_by_base(self, payload: Json) -> None:
        """Store an event with the base commit's code: it can't read what newer code has stored."""
        if self._base_receiver is None:
            process = self.process(Variant("link_customer", "base"))
            self._base_receiver = self._running.enter_context(process)
        self._base_receiver.invoke(self.requests.stage.delivery(payload))

    def _repeat_calls(self) -> Json:
        recorded = self._services.recorded
        self._services.play_back([response for _, _, response in recorded])
        return {
            "calls": [
                {"operation": xform_name(operation), "arguments": json.loads(json.dumps(body))}
                for operation, body, _ in recorded
            ]
        }

    def _usual_event(self, function: str) -> Json:
        """An event for the usual composition, which has items of its own."""
        event = self.requests.event(function)
        if function == "create_customer":
            return event
        user = event["pathParameters"]["user_id"]
        customer = self.requests.stage.change("/v1/customers", name="Jane")["id"]
        item = {
            "pk": {"S": f"USUAL#{user}"},
            "sk": {"S": "CUSTOMER"},
            "stripe_id": {"S": customer},
            "fields": {"S": json.dumps({"name": "Jane", "email": "jane@example.com"})},
        }
        self.requests.stage.database.request("PutItem", {"TableName": TABLE_NAME, "Item": item})
        return event
