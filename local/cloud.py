"""The local cloud: template.yaml, built by SAM and deployed to a local AWS, with a local Stripe.

::

    with local_cloud() as cloud:
        response = cloud.request("POST", "/customers", {"user_id": "u1", "billing_email": "a@b.co"})

Everything listens only on the loopback interface, on free ports, and works in one temporary
folder: any number of clouds run at the same time, and each is removed completely.
"""

import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from types import FrameType
from typing import Any, NoReturn
from urllib.parse import urlsplit

import boto3
import stripe
from boto3.dynamodb.types import TypeDeserializer
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from samtranslator.yaml_helper import yaml_parse

from local.forwarder import forward_events
from local.stripe_double import StripeDouble, StripeDoubleServer

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
REGION = "us-east-1"
STACK = "stripe-customers-local"
ACCESS_KEY = "test"
SECRET_KEY = "test"
ARTIFACTS = "artifacts"
SAM = ROOT / ".tools" / "sam" / "bin" / "sam"
LOCAL_AWS = ROOT / ".tools" / "ministack" / "bin" / "python"
WORK = ROOT / ".build"
BUILD = "build"
TEMPLATE = "template.yaml"
MACHINES = {"aarch64": "arm64", "arm64": "arm64"}

ABSENT, ABSENT_LOCALLY = '{"S": [{"exists": false}]}', '[{"exists": false}]'
"""In the pattern of a stream's filter: that an item lacks an attribute."""

DOUBLE_API_KEY = "sk_test_double"
DOUBLE_WEBHOOK_SECRET = "whsec_double"

START_TIMEOUT = 60.0
"""Seconds for a program to start."""

EVENT_TIMEOUT = 30.0
"""Seconds for an event to be processed."""

REQUEST_TIMEOUT = 240.0
"""Seconds for a request: fifty cold starts at once take two cores more than a minute."""

LOG_TAIL_LINES = 40
REQUESTS = "requests.log"

INHERITED_VARIABLES = (
    "PATH",
    "LANG",
    "LC_ALL",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
)
"""The caller's environment variables that the cloud's programs inherit. Functions inherit them from
the local AWS, so the caller's AWS account and Stripe key must not be among them."""


Step = Callable[[str], AbstractContextManager[object]]
"""Takes the title of a step, and returns a context manager that lasts as long as the step."""


class CloudError(Exception):
    """The local cloud failed; the message ends with the output of the program that failed."""


@dataclass(frozen=True)
class Response:
    """The response to an HTTP request; `body` is decoded if it is JSON."""

    status: int
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class Stripe:
    """The Stripe account of the cloud: the double, or a real test account if `double` is None."""

    api_key: str
    webhook_secret: str
    double: StripeDoubleServer | None = None

    @property
    def api_base(self) -> str:
        """The base URL of the API."""
        return self.double.url if self.double else stripe.DEFAULT_API_BASE

    def client(self) -> stripe.StripeClient:
        """Return a client for changes on Stripe that the product does not make."""
        return stripe.StripeClient(self.api_key, base_addresses={"api": self.api_base})


@dataclass(frozen=True)
class Cloud:
    """A running local cloud and the calls to it; `webhook_url` is empty where there is none."""

    endpoint: str
    api_url: str
    webhook_url: str
    table_name: str
    replay_events: str
    reconcile_events: str
    dead_letters_url: str
    stripe: Stripe
    folder: Path

    def client(self, service: str, config: Config | None = None) -> Any:
        """Return a boto3 client for a service of this cloud."""
        return aws_client(self.endpoint, service, config)

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Call the HTTP API with a signature, as a backend with an IAM role does.

        Parameters
        ----------
        method, path : str
        body : object, optional
            Sent as JSON; bytes are sent as they are.
        headers : mapping, optional
            Sent in addition to the headers of the signature.
        """
        data = body if isinstance(body, bytes) else encode(body)
        request = AWSRequest(
            method=method,
            url=self.api_url + path,
            data=data,
            headers={"Content-Type": "application/json", **(headers or {})},
        )
        SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "execute-api", REGION).add_auth(request)
        return http(method, self.api_url + path, data, dict(request.headers.items()))

    def deliver(self, body: bytes, signature: str | None) -> Response:
        """POST to the webhook as Stripe does, with any signature or none."""
        headers = {"Content-Type": "application/json; charset=utf-8"}
        if signature is not None:
            headers["Stripe-Signature"] = signature
        return http("POST", self.webhook_url, body, headers)

    def accepts(self, body: bytes, signature: str) -> bool:
        """POST to the webhook and return whether it accepted the event."""
        return self.deliver(body, signature).status == 200

    def invoke(self, function: str, event: object) -> Any:
        """Invoke a function by name, as an operator does, and return its result.

        Raises
        ------
        CloudError
            The function failed.
        """
        return invoke_function(self.endpoint, function, event)

    def wait_until(
        self, is_true: Callable[[], object], what: str, timeout: float = EVENT_TIMEOUT
    ) -> None:
        """Wait until a condition is true, for as long as an event may take.

        Parameters
        ----------
        is_true : callable
            The condition.
        what : str
            The condition in words, for the error.
        timeout : float
            In seconds.

        Raises
        ------
        CloudError
            The condition did not become true in time.
        """
        deadline = time.monotonic() + timeout
        while not is_true():
            if time.monotonic() > deadline:
                raise CloudError(f"timed out waiting until {what}")
            time.sleep(0.1)

    def items(self) -> list[dict[str, Any]]:
        """Return all items of the table as plain Python values, ordered by key."""
        decode = TypeDeserializer().deserialize
        pages = (
            self.client("dynamodb")
            .get_paginator("scan")
            .paginate(TableName=self.table_name, ConsistentRead=True)
        )
        found = [
            {name: decode(value) for name, value in item.items()}
            for page in pages
            for item in page["Items"]
        ]
        return sorted(found, key=lambda item: (item["pk"], item["sk"]))


def encode(body: object) -> bytes:
    """Return `body` as JSON; empty for None."""
    return b"" if body is None else json.dumps(body).encode()


def http(method: str, url: str, body: bytes, headers: Mapping[str, str]) -> Response:
    """Send one request and return its response, whatever its status."""
    request = urllib.request.Request(url, body or None, dict(headers), method=method)
    # Ignore the proxies of the caller's environment: everything is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=REQUEST_TIMEOUT) as response:
            return decoded(response.status, dict(response.headers.items()), response.read())
    except urllib.error.HTTPError as refused:
        with refused:
            return decoded(refused.code, dict(refused.headers.items()), refused.read())


def decoded(status: int, headers: Mapping[str, str], body: bytes) -> Response:
    """Return a response with its body decoded if it is JSON."""
    text = body.decode("utf-8", "replace")
    with suppress(ValueError):
        return Response(status, headers, json.loads(text))
    return Response(status, headers, text)


def aws_client(endpoint: str, service: str, config: Config | None = None) -> Any:
    """Return a boto3 client that can only reach this endpoint."""
    # Ignore the proxies of the caller's environment.
    direct = Config(proxies={})
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=direct.merge(config) if config else direct,
    )


def invoke_function(endpoint: str, name: str, event: object) -> Any:
    """Invoke a deployed function by name and return its result.

    Raises
    ------
    CloudError
        The function failed.
    """
    config = Config(read_timeout=REQUEST_TIMEOUT, retries={"total_max_attempts": 1})
    response = aws_client(endpoint, "lambda", config).invoke(
        FunctionName=name, Qualifier="live", Payload=encode(event)
    )
    payload = json.loads(response["Payload"].read())
    if "FunctionError" in response:
        raise CloudError(f"{name} failed: {payload}")
    return payload


@contextmanager
def built_functions() -> Iterator[Path]:
    """Build the functions for several clouds, for the length of the block.

    Yields
    ------
    Path
        The folder, for `local_cloud`.
    """
    with work_folder("functions") as folder, building(folder) as build:
        finish_build(build, folder / BUILD)
        yield folder / BUILD


@contextmanager
def local_cloud(
    step: Step = nullcontext,
    parameters: Mapping[str, str] | None = None,
    functions: Path | None = None,
) -> Iterator[Cloud]:
    """Run a cloud for the length of the block.

    Parameters
    ----------
    step : callable, optional
        Shows the progress, for example `printed_step`.
    parameters : mapping, optional
        Parameters of template.yaml that override those of a local stack.
    functions : Path, optional
        The folder of `built_functions`. They are built for this cloud if it is not given.

    Raises
    ------
    CloudError
        One of its programs did not start.
    """
    with unwind_on_signals() as ignore_signals, ExitStack() as running:
        try:
            yield start_cloud(running, step, parameters or {}, functions)
        finally:
            # A second Ctrl-C must not interrupt the clean-up that the first one started.
            ignore_signals()


@contextmanager
def printed_step(title: str) -> Iterator[None]:
    """Print the title of a step when it starts, and the seconds that it took when it ends."""
    print(f"… {title}: ", end="", flush=True)
    started = time.monotonic()
    try:
        yield
    finally:
        print(f"{time.monotonic() - started:.1f} s", flush=True)


def start_cloud(
    running: ExitStack, step: Step, parameters: Mapping[str, str], functions: Path | None
) -> Cloud:
    """Start everything in `running`, which stops it again."""
    folder = running.enter_context(work_folder("cloud"))
    build = None if functions else running.enter_context(building(folder))
    with step("starting the local AWS"):
        endpoint = start_local_aws(running, folder)
        used = choose_stripe(running)
        deliver_locally(endpoint, used)
        make_secrets(endpoint, used)
        if source := parameters.get("StripeEventSource"):
            make_partner_bus(endpoint, source)
    location = functions or folder / BUILD
    if build:
        with step("building the functions"):
            finish_build(build, location)
    chosen = {**stack_parameters(used), **parameters}
    deploy = sam_deploy(location / TEMPLATE, chosen)
    with (
        step("deploying template.yaml"),
        program("sam deploy", deploy, folder, environment=sam_environment(endpoint)) as deploying,
    ):
        deploying.succeed()
    outputs = stack_outputs(endpoint)
    cloud = Cloud(
        endpoint=endpoint,
        api_url=local_url(endpoint, outputs["ApiUrl"]),
        webhook_url=local_url(endpoint, outputs.get("WebhookUrl", "")),
        table_name=outputs["TableName"],
        replay_events=outputs["ReplayEventsName"],
        reconcile_events=function_name(endpoint, "ReconcileEvents"),
        dead_letters_url=outputs["DeadLettersUrl"],
        stripe=used,
        folder=folder,
    )
    if not cloud.webhook_url:
        return cloud
    if used.double:
        with used.double.use() as double:
            double.webhooks.add_endpoint(cloud.webhook_url, used.webhook_secret)
    else:
        running.enter_context(forward_events(used.client(), cloud.accepts, used.webhook_secret))
    return cloud


@contextmanager
def work_folder(name: str) -> Iterator[Path]:
    """Make a temporary folder in the project, for the length of the block."""
    WORK.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=WORK) as folder:
        yield Path(folder)


# ---- the local AWS --------------------------------------------------------------------------


def start_local_aws(running: ExitStack, folder: Path) -> str:
    """Start ministack and return its address once it responds."""
    # It inherits a socket that is already bound, so no other process can take its port.
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port = listener.getsockname()[1]
        listener.set_inheritable(True)
        command = [str(LOCAL_AWS), "-m", "hypercorn", "ministack.app:app", "--keep-alive", "75"]
        command += [
            "--bind",
            f"fd://{listener.fileno()}",
            "--access-logfile",
            str(folder / REQUESTS),
        ]
        command += ["--access-logformat", "%(m)s %(Uq)s %(s)s %(D)s"]
        environment = {
            "GATEWAY_PORT": str(port),
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            # Enforce the functions' roles (except conditions on keys).
            "AUTH": "true",
            # Turn off listeners of unused services, whose fixed ports may be in use.
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
        }
        inherited = [listener.fileno()]
        server = running.enter_context(
            program("local AWS", command, folder, environment=environment, inherited=inherited)
        )
    endpoint = f"http://{HOST}:{port}"
    server.wait_for(f"{endpoint}/_ministack/ready")
    return endpoint


def sam_build(folder: Path) -> list[str]:
    """Return the command that builds the functions outside the project's own build folder."""
    return [str(SAM), "build", "--build-dir", str(folder / BUILD)]


def building(folder: Path) -> "AbstractContextManager[Program]":
    """Build the functions, while other programs start."""
    return program("sam build", sam_build(folder), folder, is_isolated=False)


def finish_build(build: "Program", functions: Path) -> None:
    """Wait for a build, and prepare its folder for the local AWS."""
    build.succeed()
    adapt(functions / TEMPLATE)
    compress(functions / TEMPLATE)


def compress(template: Path) -> None:
    """Compress the functions of a built template once, rather than in each deployment."""
    document = yaml_parse(template.read_text())
    for resource in document["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            folder = template.parent / resource["Properties"]["CodeUri"]
            resource["Properties"]["CodeUri"] = shutil.make_archive(str(folder), "zip", folder)
            shutil.rmtree(folder)
    template.write_text(json.dumps(document, default=str))


_LOCAL_ERASURE_LOG = "arn:aws:logs:${AWS::Region}:${AWS::AccountId}:log-group:${ErasureLog}"


def adapt(template: Path) -> None:
    """Remove from a template what the local AWS lacks: TLS, and metric math of alarms.

    The policies of the queues and of the bucket deny requests without TLS. An alarm on an
    expression watches the first metric of it instead. In a filter of the stream, `exists` is asked
    of an attribute, not of the value in it. Writes to a log stream are authorized for the group.
    """
    document = yaml_parse(template.read_text())
    for policy in ("DeadLettersPolicy", "UndeliveredEventsPolicy", "ReportsPolicy"):
        del document["Resources"][policy]
    for resource in document["Resources"].values():
        metrics = resource["Properties"].pop("Metrics", ())
        for watched in [metric["MetricStat"] for metric in metrics if "MetricStat" in metric][:1]:
            resource["Properties"] |= watched["Metric"]
            resource["Properties"] |= {"Period": watched["Period"], "Statistic": watched["Stat"]}
        for event in resource["Properties"].get("Events", {}).values():
            for given in event["Properties"].get("FilterCriteria", {}).get("Filters", ()):
                given["Pattern"] = given["Pattern"].replace(ABSENT, ABSENT_LOCALLY)
        for role_policy in resource["Properties"].get("Policies", ()):
            for statement in role_policy["PolicyDocument"]["Statement"]:
                if statement.get("Sid") == "ErasureLog":
                    statement["Resource"] = {"Fn::Sub": _LOCAL_ERASURE_LOG}
    template.write_text(json.dumps(document, default=str))


def sam_deploy(template: Path, parameters: Mapping[str, str]) -> list[str]:
    """Return the command that deploys the built functions."""
    command = [str(SAM), "deploy", "--template-file", str(template), "--stack-name", STACK]
    command += ["--s3-bucket", ARTIFACTS, "--capabilities", "CAPABILITY_IAM"]
    command += ["--no-progressbar", "--parameter-overrides"]
    return command + [f"{name}={value}" for name, value in parameters.items()]


def aws_environment(endpoint: str) -> dict[str, str]:
    """Return the environment in which a program uses the local AWS."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": REGION,
    }


def sam_environment(endpoint: str) -> dict[str, str]:
    """Return the environment in which SAM only uses the local AWS."""
    return {**aws_environment(endpoint), "SAM_CLI_POLL_DELAY": "0.5"}


def stack_parameters(used: Stripe) -> dict[str, str]:
    """Return the parameters of template.yaml that differ in a local stack."""
    return {
        "StripeApiBase": used.api_base if used.double else "",
        # Functions run on the interpreter and the machine that built them.
        "Runtime": f"python{sys.version_info.major}.{sys.version_info.minor}",
        "Architecture": MACHINES.get(platform.machine(), "x86_64"),
        # The local AWS retries a failing batch until its age, and blocks all later records.
        "MaximumRecordAgeInSeconds": "60",
        # The schedule recovers discarded records; this is its shortest interval.
        "ReconcileEveryMinutes": "2",
    }


def make_secrets(endpoint: str, used: Stripe) -> None:
    """Create the two secrets and the bucket for the code that the stack expects."""
    store = aws_client(endpoint, "secretsmanager")
    store.create_secret(Name="stripe/api-key", SecretString=used.api_key)
    store.create_secret(Name="stripe/webhook-secret", SecretString=used.webhook_secret)
    aws_client(endpoint, "s3").create_bucket(Bucket=ARTIFACTS)


def make_partner_bus(endpoint: str, source: str) -> None:
    """Create the bus of a partner event source, which the stack expects.

    The local AWS takes no events of sources whose names begin with `aws.`; name another one.
    """
    aws_client(endpoint, "events").create_event_bus(Name=source, EventSourceName=source)


def stack_outputs(endpoint: str) -> dict[str, str]:
    """Return the outputs of the deployed stack by name."""
    described = aws_client(endpoint, "cloudformation").describe_stacks(StackName=STACK)
    return {o["OutputKey"]: o["OutputValue"] for o in described["Stacks"][0]["Outputs"]}


def function_name(endpoint: str, logical_id: str) -> str:
    """Return the deployed name of a function of the stack."""
    described = aws_client(endpoint, "cloudformation").describe_stack_resource(
        StackName=STACK, LogicalResourceId=logical_id
    )
    name: str = described["StackResourceDetail"]["PhysicalResourceId"]
    return name


def local_url(endpoint: str, url: str) -> str:
    """Return the local address for an API URL or a Function URL; empty if there is none."""
    if not url:
        return ""
    parts = urlsplit(url)
    identifier, _, domain = (parts.hostname or "").partition(".")
    if domain.startswith("lambda-url."):
        return f"{endpoint}/_aws/lambda-url/{identifier}/"
    return f"{endpoint}/_aws/execute-api/{identifier}/$default{parts.path}"


def deliver_locally(endpoint: str, used: Stripe) -> None:
    """Let the double deliver to the local cloud's functions by their URLs on AWS."""

    def address_of(url: str) -> str:
        _, _, domain = (urlsplit(url).hostname or "").partition(".")
        is_of_aws = domain.startswith(("lambda-url.", "execute-api."))
        return local_url(endpoint, url) if is_of_aws else url

    if used.double:
        with used.double.use() as double:
            double.webhooks.address_of = address_of


# ---- Stripe ---------------------------------------------------------------------------------


def choose_stripe(running: ExitStack) -> Stripe:
    """Return the real Stripe if STRIPE_API_KEY is set; otherwise start a double.

    Raises
    ------
    CloudError
        The key is a live-mode key: the cloud would change real customers.
    """
    key = os.environ.get("STRIPE_API_KEY", "")
    if not key:
        double = StripeDouble()
        double.api_keys = {DOUBLE_API_KEY}
        double.webhooks.first_backoff = 1.0
        server = running.enter_context(StripeDoubleServer(double, HOST))
        return Stripe(DOUBLE_API_KEY, DOUBLE_WEBHOOK_SECRET, server)
    if not key.startswith(("sk_test_", "rk_test_")):
        raise CloudError("STRIPE_API_KEY is not a test key (sk_test_… or rk_test_…)")
    return Stripe(key, os.environ.get("STRIPE_WEBHOOK_SECRET") or f"whsec_{token_hex(16)}")


# ---- programs -------------------------------------------------------------------------------


class Program:
    """A child process with its own children and its log."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    def succeed(self) -> None:
        """Wait until the process ends; raise CloudError unless it succeeded."""
        if self.process.wait():
            self.fail(f"ended with {self.process.returncode}")

    def wait_for(self, url: str) -> None:
        """Wait until `url` responds with a status below 500; raise CloudError if it does not."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                self.fail(f"ended with {self.process.returncode}")
            with suppress(OSError):
                if http("GET", url, b"", {}).status < 500:
                    return
            time.sleep(0.05)
        self.fail(f"did not respond within {START_TIMEOUT:.0f} s")

    def fail(self, how: str) -> NoReturn:
        """Raise CloudError with the end of the log."""
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        raise CloudError("\n".join([f"{self.name} {how}. The end of its output:", *lines]))

    def kill(self) -> None:
        """Kill the process and all its children; their files are removed with the folder."""
        # The process group exists as long as one of its processes does.
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def program(
    name: str,
    command: Sequence[str],
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
    inherited: Sequence[int] = (),
    is_isolated: bool = True,
) -> Iterator[Program]:
    """Run a program for the duration of the block, in a new process group, with a log.

    Ctrl-C reaches only this process, which then stops the others in order.

    Parameters
    ----------
    name : str
        The name in messages and of the log in `folder`.
    command : sequence of str
    folder : Path
        Its home directory and its folder for temporary files.
    environment : mapping, optional
        Additional environment variables.
    inherited : sequence of int, optional
        File descriptors that stay open in it.
    is_isolated : bool
        Whether it gets only `INHERITED_VARIABLES`. False for the program that fetches packages,
        which needs the caller's configuration.
    """
    log = folder / f"{name.replace(' ', '-').lower()}.log"
    variables = dict(os.environ)
    if is_isolated:
        variables = {key: os.environ[key] for key in INHERITED_VARIABLES if key in os.environ}
        variables |= {"HOME": str(folder), "TMPDIR": str(folder)}
    with log.open("wb") as printed:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={
                **variables,
                "PYTHON": sys.executable,
                "SAM_CLI_TELEMETRY": "0",
                **(environment or {}),
            },
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=inherited,
        )
    running = Program(name, process, log)
    try:
        yield running
    finally:
        running.kill()


@contextmanager
def unwind_on_signals() -> Iterator[Callable[[], None]]:
    """Let Ctrl-C, SIGTERM and SIGHUP raise an exception in the block, so that it is cleaned up.

    Yields
    ------
    callable
        Ignores these signals from now until the end of the block.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return

    def unwind(number: int, _frame: FrameType | None) -> NoReturn:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, unwind) for number in handled}

    def ignore_signals() -> None:
        for number in handled:
            signal.signal(number, signal.SIG_IGN)

    try:
        yield ignore_signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
