"""The database under the functional tests: ministack's, moto's or AWS's own DynamoDB Local.

    pytest                      # ministack's, in process, as the simulation has it
    pytest --dynamodb=moto      # moto's, in process
    pytest --dynamodb=local     # DynamoDB Local, one for all workers of pytest-xdist

`tests/conftest.py` takes the hooks and fixtures from here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import boto3
import pytest
from botocore.client import ClientCreator
from moto import mock_aws
from moto.core.config import DefaultConfig

from simulation.database import Database
from simulation.database.transport import Responder, responding
from tools import dynamodb_local, engine
from tools.template import table_properties

ENDPOINT = "DYNAMODB_LOCAL_ENDPOINT"
REGION = "eu-west-1"
NEEDS_AN_ENGINE = ("contract", "dynamodb_local", "local_cloud", "sam_local")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--dynamodb",
        choices=["ministack", "moto", "local"],
        default="ministack",
        help="what the functional tests keep their table in",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Start DynamoDB Local once: workers of pytest-xdist inherit the address."""
    if config.getoption("--dynamodb") != "local" or ENDPOINT in os.environ:
        return
    stack = ExitStack()
    try:
        os.environ[ENDPOINT] = stack.enter_context(dynamodb_local.serve())
    except engine.NotRunError as why:
        raise pytest.UsageError(f"no DynamoDB Local: {why}") from why
    stack.callback(os.environ.pop, ENDPOINT)
    config.add_cleanup(stack.close)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Tests that need an engine run only if the command line names them, as `make test-…` does."""
    if collection_path.parent.name != "tests" or collection_path.name not in NEEDS_AN_ENGINE:
        return None
    asked = [Path(argument.split("::")[0]).resolve() for argument in config.args]
    return None if any(path.is_relative_to(collection_path) for path in asked) else True


@pytest.fixture(scope="session")
def aws(request: pytest.FixtureRequest) -> Iterator[None]:
    """An AWS that is not there: moto, with another DynamoDB unless moto's is requested.

    The credentials are this process's own: DynamoDB Local keeps a database for each access key,
    so that workers neither meet nor wait for each other.
    """
    # Only AWS's own addresses are moto's.
    config: DefaultConfig = {
        "core": {"mock_credentials": False, "passthrough": {"urls": ["http://"], "services": []}}
    }
    with pytest.MonkeyPatch.context() as environment, ExitStack() as stack:
        stack.enter_context(mock_aws(config=config))
        for variable in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN"):
            environment.delenv(variable, raising=False)
        environment.setenv("AWS_ACCESS_KEY_ID", f"worker{os.getpid()}")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "local")
        environment.setenv("AWS_DEFAULT_REGION", REGION)
        environment.setenv("AWS_REGION", REGION)
        match request.config.getoption("--dynamodb"):
            case "local":
                environment.setenv("AWS_ENDPOINT_URL_DYNAMODB", os.environ[ENDPOINT])
            case "ministack":
                environment.setenv("AWS_ENDPOINT_URL_DYNAMODB", "http://in-process")
                stack.enter_context(responding_to_new_clients(Database(time.time).request))
        yield


@contextmanager
def responding_to_new_clients(respond: Responder) -> Iterator[None]:
    """Let a function respond to every client of DynamoDB that is made inside the block."""
    create = ClientCreator.create_client

    def create_connected(creator: Any, service_name: str, *args: Any, **options: Any) -> Any:
        client = create(creator, service_name, *args, **options)
        if service_name == "dynamodb":
            stack.enter_context(responding(client, respond))
        return client

    with ExitStack() as stack, mock.patch.object(ClientCreator, "create_client", create_connected):
        yield


@pytest.fixture(scope="session")
def dynamodb(aws: None) -> Any:
    """A client of the requested database."""
    return boto3.client("dynamodb")


@pytest.fixture
def table_name(dynamodb: Any) -> Iterator[str]:
    """The name of an empty table, made as template.yaml has it, dropped after the test."""
    name = "customers"  # always the same: a connection is made once and used by every test
    dynamodb.create_table(TableName=name, **table_properties())
    yield name
    dynamodb.delete_table(TableName=name)
