"""The local cloud: the real template, built by SAM and deployed onto a local AWS, beside a Stripe.

::

    with local_cloud() as cloud:
        answer = cloud.request("POST", "/customers", {"user_id": "u1", "billing_email": "a@b.test"})

Everything listens on the loopback interface alone, on ports of its own, and works in one temporary
folder: any number of clouds run side by side, and nothing of one stays behind.
"""

import json
import os
import platform
import re
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
from contextlib import ExitStack, contextmanager, suppress
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
MACHINES = {"aarch64": "arm64", "arm64": "arm64"}

DOUBLE_API_KEY = "sk_test_double"
DOUBLE_WEBHOOK_SECRET = "whsec_double"

START_TIMEOUT = 60.0
"""Seconds that a program gets to come up, and an event to come through."""

REQUEST_TIMEOUT = 240.0
"""Seconds that a request gets: fifty cold starts at once take two cores more than a minute."""

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
"""All that programs of the cloud get of the caller's environment: functions inherit it from the
local AWS, and neither an AWS account nor a Stripe key of the caller's may reach them that way."""


class CloudError(Exception):
    """The local cloud did not come up, with what the program that failed had to say."""


@dataclass(frozen=True)
class Answer:
    """What an HTTP call was answered with; `body` is decoded where it is JSON."""

    status: int
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class Stripe:
    """The Stripe that the cloud talks to: the double, or the real one where there is none."""

    api_key: str
    webhook_secret: str
    double: StripeDoubleServer | None = None

    @property
    def api_base(self) -> str:
        """Base URL of its API."""
        return self.double.url if self.double else stripe.DEFAULT_API_BASE

    def client(self) -> stripe.StripeClient:
        """Return a client as the product's users have one beside the product."""
        return stripe.StripeClient(self.api_key, base_addresses={"api": self.api_base})


@dataclass(frozen=True)
class Cloud:
    """A running local cloud, and how to talk to it."""

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
        """Return a boto3 client of a service of this cloud."""
        return aws_client(self.endpoint, service, config)

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Call the HTTP API, signed as a backend with an IAM role signs its calls.

        Parameters
        ----------
        method, path : str
        body : object, optional
            Sent as JSON; bytes are sent as they are.
        headers : mapping, optional
            Sent beside the signature's.
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

    def deliver(self, body: bytes, signature: str | None) -> Answer:
        """Post to the webhook as Stripe does, with any signature or none."""
        headers = {"Content-Type": "application/json; charset=utf-8"}
        if signature is not None:
            headers["Stripe-Signature"] = signature
        return http("POST", self.webhook_url, body, headers)

    def accepts(self, body: bytes, signature: str) -> bool:
        """Post to the webhook, and tell whether it has taken the event."""
        return self.deliver(body, signature).status == 200

    def invoke(self, function: str, event: object) -> Any:
        """Invoke a function by its name, as an operator does; returns its answer.

        Raises
        ------
        CloudError
            The function failed.
        """
        config = Config(read_timeout=REQUEST_TIMEOUT, retries={"total_max_attempts": 1})
        answer = self.client("lambda", config).invoke(
            FunctionName=function, Qualifier="live", Payload=encode(event)
        )
        payload = json.loads(answer["Payload"].read())
        if "FunctionError" in answer:
            raise CloudError(f"{function} failed: {payload}")
        return payload

    def wait_until(self, true: Callable[[], object], what: str) -> None:
        """Wait until `true()` is, as long as an event may take through the cloud.

        Raises
        ------
        CloudError
            It did not come about.
        """
        deadline = time.monotonic() + START_TIMEOUT / 2
        while not true():
            if time.monotonic() > deadline:
                raise CloudError(f"waited in vain until {what}")
            time.sleep(0.1)

    def items(self) -> list[dict[str, Any]]:
        """Return all that the table holds, as plain Python values, ordered by key."""
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
    """Return `body` as JSON, and nothing for None."""
    return b"" if body is None else json.dumps(body).encode()


def http(method: str, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
    """Send one request, with whatever status it is answered."""
    request = urllib.request.Request(url, body or None, dict(headers), method=method)
    # No proxy of the caller's environment: everything is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=REQUEST_TIMEOUT) as response:
            return answer(response.status, dict(response.headers.items()), response.read())
    except urllib.error.HTTPError as refused:
        with refused:
            return answer(refused.code, dict(refused.headers.items()), refused.read())


def answer(status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    """Return the answer with its body decoded where it is JSON."""
    text = body.decode("utf-8", "replace")
    with suppress(ValueError):
        return Answer(status, headers, json.loads(text))
    return Answer(status, headers, text)


def aws_client(endpoint: str, service: str, config: Config | None = None) -> Any:
    """Return a boto3 client that can reach nothing but this endpoint."""
    # No proxy of the caller's environment either.
    direct = Config(proxies={})
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=direct.merge(config) if config else direct,
    )


@contextmanager
def local_cloud(
    report_step: Callable[[str], None] = lambda _: None, parameters: Mapping[str, str] | None = None
) -> Iterator[Cloud]:
    """Bring a cloud up for the length of the block.

    Parameters
    ----------
    report_step : callable, optional
        Told of each step in a few words.
    parameters : mapping, optional
        Parameters of template.yaml, over the ones that a local stack needs.

    Raises
    ------
    CloudError
        A program that belongs to it did not come up.
    """
    with unwind_on_signals() as ignore_signals, ExitStack() as running:
        try:
            yield start_cloud(running, report_step, parameters or {})
        finally:
            # A second Ctrl-C must not leave behind what the first one has begun to take down.
            ignore_signals()


def start_cloud(
    running: ExitStack, report_step: Callable[[str], None], parameters: Mapping[str, str]
) -> Cloud:
    """Start everything in `running`, which takes it down again."""
    WORK.mkdir(exist_ok=True)
    folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="cloud-", dir=WORK)))
    report_step("starting the local AWS, building the functions")
    endpoint = start_local_aws(running, folder)
    used = choose_stripe(running)
    build = running.enter_context(
        program("sam build", sam_build(folder), folder, is_isolated=False)
    )
    make_secrets(endpoint, used)
    build.succeed()
    allow_http(folder / "build" / "template.yaml")
    report_step("deploying template.yaml")
    chosen = {**stack_parameters(used), **parameters}
    deploy = sam_deploy(folder, chosen)
    with program("sam deploy", deploy, folder, environment=sam_environment(endpoint)) as deploying:
        deploying.succeed()
    outputs = stack_outputs(endpoint)
    cloud = Cloud(
        endpoint=endpoint,
        api_url=f"{endpoint}/_aws/execute-api/{first_label(outputs['ApiUrl'])}/$default",
        webhook_url=f"{endpoint}/_aws/lambda-url/{first_label(outputs['WebhookUrl'])}/",
        table_name=outputs["TableName"],
        replay_events=outputs["ReplayEventsName"],
        reconcile_events=function_name(endpoint, "ReconcileEvents"),
        dead_letters_url=outputs["DeadLettersUrl"],
        stripe=used,
        folder=folder,
    )
    if used.double:
        with used.double.use() as double:
            double.webhooks.add_endpoint(cloud.webhook_url, used.webhook_secret)
    else:
        running.enter_context(forward_events(used.client(), cloud.accepts, used.webhook_secret))
    return cloud


# ---- the local AWS --------------------------------------------------------------------------


def start_local_aws(running: ExitStack, folder: Path) -> str:
    """Start ministack, and return its address once it answers."""
    # It inherits the socket, bound already: no other process can take its port before it does.
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
        command += ["--access-logformat", "%(m)s %(U)s %(s)s %(D)s"]
        environment = {
            "GATEWAY_PORT": str(port),
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            # A function may do what its role allows, and no more (conditions on keys apart).
            "AUTH": "true",
            # Listeners of services that are not ours, on ports that could be somebody's.
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
    """Return the command that bundles the functions, away from the project's own build."""
    return [str(SAM), "build", "--build-dir", str(folder / "build")]


def allow_http(template: Path) -> None:
    """Take out of a template the one thing that HTTP is refused by, and TLS is not spoken here.

    It is the policy of the dead-letter queue, which denies everything that doesn't come over TLS.
    """
    whole = template.read_text()
    template.write_text(re.sub(r"^  DeadLettersPolicy:\n(?:   .*\n)+", "", whole, flags=re.M))


def sam_deploy(folder: Path, parameters: Mapping[str, str]) -> list[str]:
    """Return the command that deploys what was built."""
    template = folder / "build" / "template.yaml"
    command = [str(SAM), "deploy", "--template-file", str(template), "--stack-name", STACK]
    command += ["--s3-bucket", ARTIFACTS, "--capabilities", "CAPABILITY_IAM"]
    command += ["--no-progressbar", "--parameter-overrides"]
    return command + [f"{name}={value}" for name, value in parameters.items()]


def sam_environment(endpoint: str) -> dict[str, str]:
    """Return what makes SAM talk to the local AWS, and to nothing else."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": REGION,
        "SAM_CLI_POLL_DELAY": "0.5",
    }


def stack_parameters(used: Stripe) -> dict[str, str]:
    """Return the parameters that a local stack needs to differ in."""
    return {
        "StripeApiBase": used.api_base if used.double else "",
        # Functions run on the interpreter, and the machine, that built them.
        "Runtime": f"python{sys.version_info.major}.{sys.version_info.minor}",
        "Architecture": MACHINES.get(platform.machine(), "x86_64"),
        # The local AWS repeats a failing batch for ever, and with it all that comes after.
        "MaximumRecordAgeInSeconds": "60",
        # What it gave up is brought home by the schedule, at its quickest here.
        "ReconcileEveryMinutes": "2",
    }


def make_secrets(endpoint: str, used: Stripe) -> None:
    """Put the two secrets, and the bucket for the code, where the stack expects them."""
    store = aws_client(endpoint, "secretsmanager")
    store.create_secret(Name="stripe/api-key", SecretString=used.api_key)
    store.create_secret(Name="stripe/webhook-secret", SecretString=used.webhook_secret)
    aws_client(endpoint, "s3").create_bucket(Bucket=ARTIFACTS)


def stack_outputs(endpoint: str) -> dict[str, str]:
    """Return the deployed stack's outputs by name."""
    described = aws_client(endpoint, "cloudformation").describe_stacks(StackName=STACK)
    return {o["OutputKey"]: o["OutputValue"] for o in described["Stacks"][0]["Outputs"]}


def function_name(endpoint: str, logical_id: str) -> str:
    """Return the name that a function of the stack was deployed under."""
    described = aws_client(endpoint, "cloudformation").describe_stack_resource(
        StackName=STACK, LogicalResourceId=logical_id
    )
    name: str = described["StackResourceDetail"]["PhysicalResourceId"]
    return name


def first_label(url: str) -> str:
    """Return the id of an API or a function URL: what its host name starts with."""
    return (urlsplit(url).hostname or "").partition(".")[0]


# ---- Stripe ---------------------------------------------------------------------------------


def choose_stripe(running: ExitStack) -> Stripe:
    """Return the real Stripe where STRIPE_API_KEY is set, else a double, started here.

    Raises
    ------
    CloudError
        The key is one of live mode: what is tried out here would happen to real customers.
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
    """A child process, its children, and what it printed."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    def succeed(self) -> None:
        """Wait until it ends, and raise CloudError unless that was with success."""
        if self.process.wait():
            self.fail(f"ended with {self.process.returncode}")

    def wait_for(self, url: str) -> None:
        """Wait until somebody answers at `url`, with whatever status below 500."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                self.fail(f"ended with {self.process.returncode}")
            with suppress(OSError):
                if http("GET", url, b"", {}).status < 500:
                    return
            time.sleep(0.05)
        self.fail(f"did not answer within {START_TIMEOUT:.0f} s")

    def fail(self, how: str) -> NoReturn:
        """Raise CloudError with the last that it printed."""
        said = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        raise CloudError("\n".join([f"{self.name} {how}. The end of what it printed:", *said]))

    def kill(self) -> None:
        """End it and all that it started, at once: what they have written goes with the folder."""
        # The group outlives its leader as long as one of its processes does.
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
    """Run a program for the length of the block, in a process group and with a log of its own.

    Ctrl-C reaches this process alone, which then ends the others in order.

    Parameters
    ----------
    name : str
        How messages, and its log in `folder`, are headed.
    command : sequence of str
    folder : Path
        Its home, for temporary files too.
    environment : mapping, optional
        What it is given beside the usual.
    inherited : sequence of int, optional
        File descriptors that stay open in it.
    is_isolated : bool
        False for the one program that fetches packages, as the caller has set that up.
    """
    log = folder / f"{name.replace(' ', '-').lower()}.log"
    kept = {key: os.environ[key] for key in INHERITED_VARIABLES if key in os.environ}
    own = {**kept, "HOME": str(folder), "TMPDIR": str(folder)} if is_isolated else dict(os.environ)
    with log.open("wb") as printed:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={
                **own,
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
    """Let Ctrl-C and SIGTERM unwind the block, so that everything in it is taken down.

    Yields
    ------
    callable
        From its call on, both are ignored until the end of the block.
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
