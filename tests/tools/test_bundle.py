"""What goes into a function's zip."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import botocore
import pytest
import stripe
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.loaders import Loader
from botocore.session import Session
from urllib3.response import HTTPResponse

from tools import bundle
from tools.template import of_type

QUEUE = "https://sqs.eu-west-1.amazonaws.com/123456789012/queue"
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "dynamodb": ("get_item", {"TableName": "table", "Key": {"pk": {"S": "USER#u-1"}}}),
    "events": ("put_events", {"Entries": [{"Source": "source", "Detail": "{}"}]}),
    "logs": (
        "put_log_events",
        {
            "logGroupName": "group",
            "logStreamName": "stream",
            "logEvents": [{"timestamp": 1, "message": "line"}],
        },
    ),
    "s3": ("get_object", {"Bucket": "bucket", "Key": "rows.csv"}),
    "secretsmanager": ("get_secret_value", {"SecretId": "stripe/api-key"}),
    "sqs": ("send_message", {"QueueUrl": QUEUE, "MessageBody": "{}"}),
    "ssm": ("get_parameter", {"Name": "/stripe/api-key"}),
}
"""An operation of each service that functions call, with its parameters."""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of one function whose packages are installed without a registry."""

    def install(requirements_files: Sequence[Path], target: Path, pip: Path) -> None:
        for name in ("dynamodb", "ec2", "events", "logs", "s3", "secretsmanager", "sqs", "ssm"):
            for library in ("botocore", "boto3"):
                (target / library / "data" / name).mkdir(parents=True)
        (target / "botocore" / "data" / "endpoints.json").write_text('{"partitions": []}')
        for name in ("stripe", "stripe/params", "stripe-1.dist-info"):
            (target / name).mkdir()
        (target / "stripe" / "_object_classes.py").write_text("")
        for name in ("boto3-1.dist-info", "s3transfer", "dateutil/zoneinfo"):
            (target / name).mkdir(parents=True)
            (target / name / "__init__.py").write_text("")
        (target / "stripe" / "__init__.py").write_text("")
        (target / "stripe-1.dist-info" / "RECORD").write_text("")
        (target / "stripe-1.dist-info" / "METADATA").write_text("")

    root = tmp_path / "project"
    (root / "functions" / "greet" / "__pycache__").mkdir(parents=True)
    (root / "functions" / "greet" / "app.py").write_text("from stripe_integrations import word\n")
    (root / "shared" / "stripe_integrations").mkdir(parents=True)
    (root / "shared" / "stripe_integrations" / "__init__.py").write_text("word = 'hello'\n")
    (root / "requirements").mkdir()
    (root / "requirements" / "function.txt").write_text("stripe==1\n")
    monkeypatch.setattr(bundle, "ROOT", root)
    monkeypatch.setattr(bundle, "CACHE", root / ".build")
    monkeypatch.setattr(bundle, "install", install)
    return root


def models(bundled: Path) -> set[str]:
    return {path.name for path in (bundled / "botocore" / "data").iterdir() if path.is_dir()}


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_holds_handler_package_and_pruned_libraries(project: Path, tmp_path: Path) -> None:
    bundle.main("greet", "function", str(tmp_path / "out"))

    tag = sys.implementation.cache_tag
    assert files(tmp_path / "out") == {
        "app.py",
        f"__pycache__/app.{tag}.pyc",
        "stripe_integrations/__init__.py",
        f"stripe_integrations/__pycache__/__init__.{tag}.pyc",
        "stripe/__init__.py",
        "stripe/_object_classes.py",
        f"stripe/__pycache__/_object_classes.{tag}.pyc",
        f"stripe/__pycache__/__init__.{tag}.pyc",
        "stripe-1.dist-info/METADATA",
        "botocore/data/endpoints.json",
    }
    assert models(tmp_path / "out") == {"dynamodb", "secretsmanager", "ssm"}


@pytest.mark.parametrize(
    ("variables", "services"),
    [
        ({"STRIPE_API_KEY_NAME", "STRIPE_WEBHOOK_SECRET_NAME"}, {"secretsmanager", "ssm"}),
        ({"EVENT_BUS_NAME"}, {"events"}),
        ({"DEAD_LETTERS_URL"}, {"sqs"}),
        ({"REPORTS_BUCKET"}, {"s3"}),
        ({"ERASURE_LOG_GROUP"}, {"logs"}),
    ],
)
def test_models_are_of_the_services_that_a_function_is_configured_to_call(
    variables: set[str], services: set[str]
) -> None:
    for function in of_type("AWS::Serverless::Function").values():
        name = Path(function["Properties"]["CodeUri"]).name
        given = function["Properties"].get("Environment", {"Variables": {}})["Variables"]
        called = bundle.services(name)
        assert called & services == (services if variables & given.keys() else set())
        assert "dynamodb" in called


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """botocore's data of what functions call, and of SES, whose endpoints have another name."""
    data = tmp_path_factory.mktemp("data")
    installed = Path(botocore.__file__).parent / "data"
    for name in (*CALLS, "ses"):
        shutil.copytree(installed / name, data / name)
    for name in ("endpoints.json", "partitions.json", "sdk-default-configuration.json"):
        shutil.copy(installed / name, data)
    bundle.reduce_models(data)
    return data


class TestReducedModels:
    def loaded(self, data: Path, service: str) -> tuple[Any, Any]:
        """A service's model as botocore has it, and as it reads the reduced one."""
        reduced = Loader([str(data)], include_default_search_paths=False)
        return tuple(
            loader.load_service_model(service, "service-2") for loader in (Loader(), reduced)
        )

    @pytest.mark.parametrize("service", ["dynamodb", "ses"])
    def test_model_differs_in_documentation_alone(self, data: Path, service: str) -> None:
        full, reduced = self.loaded(data, service)
        assert reduced.keys() == full.keys()
        assert len(json.dumps(reduced)) < len(json.dumps(full)) / 2
        for kind in ("operations", "shapes"):
            assert reduced[kind].keys() == full[kind].keys()
        table = full["shapes"].get("CreateTableInput", {}).get("members", {})
        assert (
            reduced["shapes"].get("CreateTableInput", {}).get("members", {}).keys() == table.keys()
        )

    @pytest.mark.parametrize("service", ["dynamodb", "ses"])
    @pytest.mark.parametrize("region", ["eu-west-1", "us-gov-west-1", "cn-north-1"])
    def test_endpoint_is_the_same(self, data: Path, service: str, region: str) -> None:
        urls = []
        for paths, include_default in (([], True), ([str(data)], False)):
            session = Session()
            loader = Loader(paths, include_default_search_paths=include_default)
            session.register_component("data_loader", loader)
            urls.append(session.create_client(service, region_name=region).meta.endpoint_url)
        assert urls[0] == urls[1]

    def test_every_service_that_functions_call_has_a_call(self) -> None:
        functions = (path.parent.name for path in (bundle.ROOT / "functions").glob("*/app.py"))
        assert set().union(*map(bundle.services, functions)) == CALLS.keys()

    @pytest.mark.parametrize("service", CALLS)
    def test_request_is_the_same(self, data: Path, service: str) -> None:
        operation, params = CALLS[service]
        requests = []

        def respond(request: AWSPreparedRequest, **_: object) -> AWSResponse:
            requests.append((request.method, request.url, request.body))
            return AWSResponse(request.url, 400, {}, HTTPResponse(BytesIO()))

        for paths, include_default in (([], True), ([str(data)], False)):
            session = Session()
            loader = Loader(paths, include_default_search_paths=include_default)
            session.register_component("data_loader", loader)
            client = session.create_client(
                service,
                region_name="eu-west-1",
                aws_access_key_id="none",
                aws_secret_access_key="none",
                config=Config(retries={"total_max_attempts": 1}),
            )
            client.meta.events.register_first("before-send", respond)
            with pytest.raises(ClientError):
                getattr(client, operation)(**params)
        assert requests[0] == requests[1]


class TestStripeClasses:
    def test_objects_of_areas_that_are_left_out_are_plain(self, tmp_path: Path) -> None:
        """Every object class is imported from a copy of the library without these areas."""
        copy = tmp_path / "stripe"
        shutil.copytree(Path(stripe.__file__).parent, copy)
        for area in bundle.STRIPE_AREAS:
            shutil.rmtree(copy / area)
        bundle.forget_classes(tmp_path)
        code = (
            "import stripe\n"
            "from stripe import _object_classes as classes\n"
            "assert stripe.__file__.startswith(path), stripe.__file__\n"
            "modes = {'V1': classes.OBJECT_CLASSES, 'V2': classes.V2_OBJECT_CLASSES}\n"
            "for mode in modes:\n"
            "    for name in modes[mode]:\n"
            "        assert classes.get_object_class(mode, name) is not stripe.StripeObject\n"
            "for name in ('checkout.session', 'issuing.card', 'unknown'):\n"
            "    assert classes.get_object_class('V1', name) is stripe.StripeObject\n"
            "for name in ('customer', 'subscription', 'payment_method', 'event', 'tax_id'):\n"
            "    assert name in classes.OBJECT_CLASSES\n"
        )
        given = {**os.environ, "PYTHONPATH": str(tmp_path)}
        command = [sys.executable, "-c", f"path = {str(tmp_path)!r}\n{code}"]
        subprocess.run(command, env=given, check=True)


class TestUnusedByProduct:
    def test_functions_run_without_the_parts_that_are_left_out(self, tmp_path: Path) -> None:
        for name in ("aws_lambda_powertools", "dateutil", "urllib3"):
            shutil.copytree(Path(botocore.__file__).parents[1] / name, tmp_path / name)
        for part in bundle.POWERTOOLS_PARTS:
            assert (tmp_path / "aws_lambda_powertools" / part).exists()
        bundle.remove(tmp_path, (*bundle.UNUSED, *bundle.UNUSED_BY_PRODUCT))
        assert not (tmp_path / "dateutil" / "rrule.py").exists()
        code = (
            "import sys\n"
            "import aws_lambda_powertools, dateutil, urllib3\n"
            "from importlib import import_module\n"
            "from tools.lambda_events import lambda_context\n"
            "for package in (aws_lambda_powertools, dateutil, urllib3):\n"
            "    assert package.__file__.startswith(sys.argv[1])\n"
            "for name in sys.argv[2:]:\n"
            "    handler = import_module(f'functions.{name}.app').handler\n"
            "assert import_module('functions.get_customer.app').handler({}, lambda_context())"
            "['statusCode'] == 500\n"
        )
        names = [path.parent.name for path in (bundle.ROOT / "functions").glob("*/app.py")]
        assert names
        paths = [tmp_path, bundle.ROOT / "shared", bundle.ROOT]
        given = {
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "POWERTOOLS_SERVICE_NAME": "stack",
            "AWS_LAMBDA_FUNCTION_NAME": "get-customer",
            "AWS_LAMBDA_FUNCTION_VERSION": "7",
        }
        command = [sys.executable, "-c", code, str(tmp_path), *names]
        printed = subprocess.run(command, env=given, check=True, capture_output=True).stdout
        assert [json.loads(line)["InternalErrors"] for line in printed.splitlines()] == [[1.0]] * 2


def test_bytecode_is_unchecked_and_of_lambdas_paths(project: Path, tmp_path: Path) -> None:
    bundle.main("greet", "function", str(tmp_path / "out"))

    compiled = Path(importlib.util.cache_from_source(str(tmp_path / "out" / "app.py")))
    content = compiled.read_bytes()
    (flags,) = struct.unpack("<I", content[4:8])
    assert flags == 0b01, "hash-based, unchecked"
    assert b"/var/task/app.py" in content
    assert str(tmp_path).encode() not in content


def test_change_in_shared_reaches_next_bundle(project: Path, tmp_path: Path) -> None:
    bundle.main("greet", "function", str(tmp_path / "out"))
    (project / "shared" / "stripe_integrations" / "__init__.py").write_text("word = 'changed'\n")

    bundle.main("greet", "function", str(tmp_path / "out"))

    shipped = tmp_path / "out" / "stripe_integrations" / "__init__.py"
    assert shipped.read_text() == "word = 'changed'\n"


def test_libraries_are_installed_once(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle.main("greet", "function", str(tmp_path / "out"))
    monkeypatch.setattr(bundle, "install", None)

    bundle.main("greet", "function", str(tmp_path / "other"))

    assert files(tmp_path / "out") == files(tmp_path / "other")


def test_syntax_error_fails_the_build(project: Path, tmp_path: Path) -> None:
    (project / "functions" / "greet" / "app.py").write_text("def\n")

    with pytest.raises(SystemExit, match="does not compile"):
        bundle.main("greet", "function", str(tmp_path / "out"))
