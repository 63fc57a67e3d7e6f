"""The functions in Lambda's own container, with an AWS and a Stripe beside it.

A container can't reach 127.0.0.1 of this machine, so both listen on the address of Docker's
bridge, which this machine and its containers alone can reach.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from local.stripe_double import StripeDouble, StripeDoubleServer
from tools import docker_engine, engine
from tools.template import table_properties

SAM = engine.CACHE / "sam" / "bin" / "sam"
LOCAL_AWS = engine.CACHE / "ministack" / "bin" / "python"
BUILD = engine.ROOT / ".build" / "sam-local"
REGION = "us-east-1"
TABLE = "customers"
API_KEY = "sk_test_double"
SIGNING_SECRET = "whsec_double"


@dataclass(frozen=True)
class SamLocal:
    """What `sam local` is called with, and what the functions find."""

    double: StripeDouble
    aws_url: str
    options: list[str]
    environment: dict[str, str]

    def invoke(self, function: str, event: dict[str, Any]) -> Any:
        """Invoke a function once, in a new container; its response."""
        done = subprocess.run(
            [SAM, "local", "invoke", function, "--event", "-", *self.options],
            cwd=engine.ROOT,
            env=self.environment,
            input=json.dumps(event),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def client(self, service: str) -> Any:
        """A boto3 client of the AWS that the functions find."""
        return boto3.client(
            service,
            endpoint_url=self.aws_url,
            region_name=REGION,
            aws_access_key_id="local",
            aws_secret_access_key="local",
        )


@pytest.fixture(scope="session")
def sam_local() -> Iterator[SamLocal]:
    """The functions as `sam build` made them, an AWS with their table and secrets, a Stripe."""
    address = docker_engine.bridge_address()
    port = engine.free_port(address)
    aws_url = f"http://{address}:{port}"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": REGION,
        # SAM calls STS for the account id before each call; AWS's own endpoint would time out.
        "AWS_ENDPOINT_URL": aws_url,
        "PYTHON": sys.executable,
        "SAM_CLI_TELEMETRY": "0",
    }
    double = StripeDouble()
    double.api_keys = {API_KEY}
    with (
        engine.running(
            [str(LOCAL_AWS), "-m", "hypercorn", "ministack.app:app", "--bind", f"{address}:{port}"],
            name="ministack",
            env={"GATEWAY_PORT": str(port), "IOT_MTLS_ENABLED": "0", "SFTP_ENABLED": "0"},
            ready=lambda: engine.listens(address, port),
        ),
        StripeDoubleServer(double, host=address) as stripe,
    ):
        local = SamLocal(
            double, aws_url, _options(_build(environment), aws_url, stripe.url), environment
        )
        local.client("dynamodb").create_table(TableName=TABLE, **table_properties())
        secrets = local.client("secretsmanager")
        secrets.create_secret(Name="stripe/api-key", SecretString=API_KEY)
        secrets.create_secret(Name="stripe/webhook-secret", SecretString=SIGNING_SECRET)
        yield local


def _build(environment: dict[str, str]) -> Path:
    """Build the functions; the template, with a variable more that leads them to our AWS.

    `sam local` sets only variables that the template has.
    """
    done = subprocess.run(
        [SAM, "build", "--build-dir", BUILD],
        cwd=engine.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    built = yaml.safe_load((BUILD / "template.yaml").read_text())
    built["Globals"]["Function"]["Environment"]["Variables"]["AWS_ENDPOINT_URL"] = ""
    template = BUILD / "sam-local.yaml"
    template.write_text(yaml.safe_dump(built))
    return template


def _options(template: Path, aws_url: str, stripe_url: str) -> list[str]:
    variables = BUILD / "variables.json"
    # `sam local start-api` has no authorizer of this kind; the examples in events/ have passed one.
    given = {"AWS_ENDPOINT_URL": aws_url, "TABLE_NAME": TABLE, "API_AUTHORIZER": "none"}
    variables.write_text(json.dumps({"Parameters": given}))
    return [
        *("--template", str(template)),
        *("--env-vars", str(variables)),
        *("--parameter-overrides", f"Runtime={docker_engine.RUNTIME}"),
        f"Architecture={docker_engine.ARCHITECTURE}",
        f"StripeApiBase={stripe_url}",
        "--skip-pull-image",
    ]
