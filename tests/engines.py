"""The database under the functional tests: moto, AWS's own DynamoDB Local, or the simulation's.

    pytest                          # moto, in process
    pytest --dynamodb=local         # DynamoDB Local, one for all workers of pytest-xdist
    pytest --dynamodb=simulated     # the simulation's database, in process

`tests/conftest.py` takes the hooks and fixtures from here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws
from pynamodb.connection import TableConnection

from simulation.database import Database, transport
from stripe_integrations.models.table import Record
from tools import dynamodb_local, engine
from tools.template import table_properties

ENDPOINT = "DYNAMODB_LOCAL_ENDPOINT"
REGION = "eu-west-1"
NEEDS_AN_ENGINE = ("contract", "dynamodb_local", "local_cloud", "localstripe", "sam_local")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--dynamodb",
        choices=["moto", "local", "simulated"],
        default="moto",
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
    """Tests that need an engine run where they are asked for by name: `make test-…` does."""
    if collection_path.parent.name != "tests" or collection_path.name not in NEEDS_AN_ENGINE:
        return None
    asked = [Path(argument.split("::")[0]).resolve() for argument in config.args]
    return None if any(path.is_relative_to(collection_path) for path in asked) else True


@pytest.fixture(scope="session")
def aws(request: pytest.FixtureRequest) -> Iterator[None]:
    """An AWS that is not there: moto, with another DynamoDB where that was asked for.

    The credentials are this process's own: DynamoDB Local keeps a database for each access key,
    so that workers neither meet nor wait for each other.
    """
    with pytest.MonkeyPatch.context() as environment, ExitStack() as stack:
        stack.enter_context(mock_aws(config={"core": {"mock_credentials": False}}))
        for variable in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN"):
            environment.delenv(variable, raising=False)
        environment.setenv("AWS_ACCESS_KEY_ID", f"worker{os.getpid()}")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "local")
        environment.setenv("AWS_DEFAULT_REGION", REGION)
        environment.setenv("AWS_REGION", REGION)
        match request.config.getoption("--dynamodb"):
            case "local":
                environment.setenv("AWS_ENDPOINT_URL_DYNAMODB", os.environ[ENDPOINT])
            case "simulated":
                stack.enter_context(simulated(Database(time.time)))
        yield


@contextmanager
def simulated(database: Database) -> Iterator[None]:
    """Let the simulation's database answer every client that is made inside the block."""
    with pytest.MonkeyPatch.context() as environment:
        # moto answers what goes to AWS's own addresses.
        environment.setenv("AWS_ENDPOINT_URL_DYNAMODB", "http://dynamodb.simulated")
        with transport.answering_new_clients(database.request):
            yield


class InProcess:
    """The simulation's database beside moto's, for the tests that make very many calls.

    moto takes several times as long for each. Where another engine was asked for, they run on that
    as all others do.
    """

    def __init__(self) -> None:
        self._database = Database(time.time)
        self._client: Any = None
        self._connection: TableConnection | None = None

    @contextmanager
    def serve(self) -> Iterator[Any]:
        """Put it in moto's place for one test; a client of it."""
        with simulated(self._database):
            if self._client is None:
                # Of a session of its own: the default one was made before the block.
                self._client = boto3.Session().client("dynamodb")
            usual, Record._connection = Record._connection, self._connection
            try:
                yield self._client
            finally:
                self._connection, Record._connection = Record._connection, usual


@pytest.fixture(scope="session")
def engines(aws: None) -> tuple[Any, InProcess]:
    """A client of the database that was asked for, and the other one.

    Made once: making a client costs more than most tests.
    """
    return boto3.client("dynamodb"), InProcess()


@pytest.fixture
def dynamodb(request: pytest.FixtureRequest, engines: tuple[Any, InProcess]) -> Iterator[Any]:
    """A client of the database that this test runs on."""
    client, in_process = engines
    plays_on_moto = request.config.getoption("--dynamodb") == "moto"
    if plays_on_moto and request.node.get_closest_marker("many_calls"):
        with in_process.serve() as other:
            yield other
    else:
        yield client


@pytest.fixture
def table_name(dynamodb: Any) -> Iterator[str]:
    """The name of an empty table, made as template.yaml has it, dropped after the test."""
    name = "customers"  # always the same: a connection is made once and used by every test
    dynamodb.create_table(TableName=name, **table_properties())
    yield name
    dynamodb.delete_table(TableName=name)
