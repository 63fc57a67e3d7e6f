"""The database under the functional tests: ministack's, moto's or AWS's own DynamoDB Local.

    pytest                      # ministack's, in process, as the simulation has it
    pytest --dynamodb=moto      # moto's, in process
    pytest --dynamodb=local     # DynamoDB Local, one for all workers of pytest-xdist

`tests/conftest.py` takes the hooks and fixtures from here.
"""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import boto3
import pytest
from botocore.client import ClientCreator
from moto import mock_aws
from moto.core.config import DefaultConfig
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.core.utils import method_names_from_class
from moto.dynamodb.models import dynamodb_backends

from simulation.database import Database
from simulation.database.transport import Responder, responding
from tools import dynamodb_local, engine
from tools.template import table_properties

ENDPOINT = "DYNAMODB_LOCAL_ENDPOINT"
REGION = "eu-west-1"
NEEDS_AN_ENGINE = ("browser", "contract", "dynamodb_local", "local_cloud", "sam_local")


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


def deselect_tests_without_database(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests without a database, unless the requested one is ministack's."""
    if config.getoption("--dynamodb") == "ministack":
        return
    left_out = [item for item in items if not needs_database(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


def needs_database(test: pytest.Item) -> bool:
    """Return whether a test has the fixture `aws`, or is in the folder of an engine."""
    is_of_engine = any(folder in test.path.parts for folder in NEEDS_AN_ENGINE)
    return is_of_engine or "aws" in getattr(test, "fixturenames", ())


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
            case "moto":
                stack.enter_context(faster_moto())
        yield


@contextmanager
def faster_moto() -> Iterator[None]:
    """Make moto copy a table faster, which it does for each item of a transaction.

    It also looks up the names of its own methods for each request; here they are cached.
    """
    copies = SimpleNamespace(deepcopy=lambda value: pickle.loads(pickle.dumps(value)))  # noqa: S301
    names = cache(method_names_from_class)
    with (
        mock.patch("moto.dynamodb.models.copy", copies),
        mock.patch("moto.core.responses.method_names_from_class", names),
    ):
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
def table_name(dynamodb: Any, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of an empty table, made as template.yaml has it."""
    name = "customers"  # always the same: a connection is made once and used by every test
    if request.config.getoption("--dynamodb") == "moto":
        yield from moto_table(dynamodb, name)
        return
    dynamodb.create_table(TableName=name, **table_properties())
    yield name
    dynamodb.delete_table(TableName=name)


def moto_table(dynamodb: Any, name: str) -> Iterator[str]:
    """Create a table once, and empty it after each test: moto takes long to create one."""
    tables = dynamodb_backends[DEFAULT_ACCOUNT_ID][REGION].tables
    if name not in tables:
        dynamodb.create_table(TableName=name, **table_properties())
    yield name
    tables[name].items.clear()
