"""`env`: what a process with the Python API is configured with."""

from __future__ import annotations

import shlex

import pytest

from stripe_integrations.config import Settings
from tests.cli.conftest import STACK, Json, Run, objects
from tests.world import World
from tools.template import of_type, template

NOT_OF_A_WORKER = {
    "HANDLER_ENVIRONMENT",
    "WEBHOOK_INGRESS",
    "STRIPE_EVENT_SOURCE",
    "API_AUTHORIZER",
    "JWT_ADMIN_SCOPE",
    "POWERTOOLS_SERVICE_NAME",
    "POWERTOOLS_LOG_LEVEL",
}
"""What concerns a function alone: how it is invoked, and how it logs."""


class TestEnv:
    def test_settings_are_those_of_the_stack(self, run: Run, world: World) -> None:
        printed = run("env").stdout.splitlines()
        variables = dict(shlex.split(line)[0].split("=", 1) for line in printed)
        settings = Settings.from_environment(variables)
        assert settings.table_name == world.settings.table_name
        assert settings.deployment_name == STACK
        assert settings.api_key_name == "secretsmanager:stripe/api-key"
        assert settings.reports_bucket == "the-ReportsBucket"
        assert objects(run("env", "--json")) == [variables]

    def test_has_every_variable_of_the_functions(self, run: Run) -> None:
        functions = [
            template()["Globals"]["Function"],
            *(resource["Properties"] for resource in of_type("AWS::Serverless::Function").values()),
        ]
        of_functions = {
            name
            for function in functions
            for name in function.get("Environment", {}).get("Variables", ())
        }
        (variables,) = objects(run("env", "--json"))
        optional = {"STRIPE_API_BASE", "EVENT_BUS_NAME", "PUBLISH_TYPES", "ADOPT_FROM"}
        assert of_functions - NOT_OF_A_WORKER - variables.keys() <= optional
        assert variables.keys() <= of_functions


class TestOtherStack:
    @pytest.fixture
    def stack_parameters(self) -> Json:
        return {
            "SecretStore": "ssm",
            "StoredRecords": "",
            "PublishTypes": "invoice.paid,invoice.*",
            "EventBusName": "bus",
        }

    def test_has_its_parameters(self, run: Run) -> None:
        (variables,) = objects(run("env", "--json"))
        store, _, name = variables["STRIPE_API_KEY_NAME"].partition(":")
        assert (store, name) == ("ssm", "/stripe/api-key")
        assert variables["PUBLISH_TYPES"] == "invoice.paid,invoice.*"
        assert Settings.from_environment(variables).stored_records == frozenset()
