"""What the process of a function does before its first invocation, each in a new process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]

SETTINGS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "eu-west-1",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "DEPLOYMENT_NAME": "stripe-customers",
    "TABLE_NAME": "customers",
}
KEY = {"STRIPE_API_KEY_NAME": "ssm:/stripe/key"}
IN_LAMBDA = {"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9"}

PROGRAM = """
import importlib, json, sys
connected = []
def note(event, arguments):
    if event == "socket.connect":
        connected.append(str(arguments))
sys.addaudithook(note)
importlib.import_module(f"functions.{sys.argv[1]}.app")
from stripe_integrations.models.table import Record
clients = []
def make(*args, **kwargs):
    clients.append(args)
    return original(*args, **kwargs)
from botocore.session import Session
original = Session.create_client
Session.create_client = make
try:
    Record.connection().client
except Exception as error:
    clients.append(type(error).__name__)
seen = {"connected": connected, "modules": sorted(sys.modules), "made_later": len(clients)}
print(json.dumps(seen))
"""


def start(function: str, **environment: str) -> Any:
    """Import a function in a new process; what it has done by then."""
    path = f"{ROOT / 'shared'}:{ROOT}"
    command = [sys.executable, "-c", PROGRAM, function]
    given = {**environment, "PYTHONPATH": path}
    output = subprocess.run(command, env=given, check=True, capture_output=True, cwd=ROOT).stdout
    return json.loads(output.splitlines()[-1])


class TestInitialize:
    def test_makes_the_clients_without_a_connection(self) -> None:
        started = start("create_customer", **SETTINGS, **KEY, **IN_LAMBDA)
        assert started["connected"] == []
        assert started["made_later"] == 0
        assert {"stripe._stripe_client", "requests"} <= set(started["modules"])
        assert "boto3" not in started["modules"]

    def test_imports_no_more_than_the_function_needs(self) -> None:
        modules = start("get_customer", **SETTINGS, **IN_LAMBDA)["modules"]
        assert not {"stripe", "requests", "boto3"} & set(modules)

    @pytest.mark.parametrize("function", ["create_customer", "apply_event"])
    def test_with_wrong_settings_leaves_the_error_to_the_invocation(self, function: str) -> None:
        wrong = {**SETTINGS, "STRIPE_API_KEY_NAME": "vault:key", "STORED_RECORDS": "Nothing"}
        assert start(function, **wrong, **IN_LAMBDA)["connected"] == []
        assert start(function, **IN_LAMBDA)["connected"] == []

    def test_does_nothing_outside_of_lambda(self) -> None:
        started = start("create_customer", **SETTINGS, **KEY)
        assert started["made_later"] == 1
        assert "stripe" not in started["modules"]
