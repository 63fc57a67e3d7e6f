"""The commands of the documents, run unchanged and in their order on the local AWS."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from stripe import StripeClient

from local.cloud import (
    ACCESS_KEY,
    DOUBLE_API_KEY,
    REGION,
    ROOT,
    SAM,
    SECRET_KEY,
    Stripe,
    adapt,
    aws_client,
    choose_stripe,
    deliver_locally,
    stack_parameters,
    start_local_aws,
    work_folder,
)
from local.stripe_double.versions import VERSION
from local.stripe_double.webhooks import WebhookEndpoint
from tests.custom_handlers_document import write_example
from tests.documents import Block, blocks, copy_of_the_project
from tests.local_cloud.test_events import make_due_for_the_last_time
from tests.local_cloud.workers import end_workers
from tests.terminal import run_in_terminal

STRIPE_CUSTOMERS = f"""\
#!/bin/sh
PYTHONPATH={{project}}/shared:{{project}}/cli exec {sys.executable} -m stripe_integrations_cli "$@"
"""

DOCUMENTS = ("docs/deploy.md", "README.md", "docs/custom-handlers.md", "docs/operate.md")
AWS_CLI = ROOT / ".tools" / "awscli" / "bin" / "aws"
PATIENCE = 30.0
BLOCKS = [*blocks(*DOCUMENTS)]
LATER_USER = '{"user_id": "later", "billing_email": "later@example.com"}'

AWS = f"""\
#!/bin/sh
# Version 1 has addresses of its own for some services, and would not ask the environment.
exec {AWS_CLI} --endpoint-url "$AWS_ENDPOINT_URL" "$@"
"""

COMPRESS = "from local.cloud import compress; compress(Path('.aws-sam/build/template.yaml'))"
SAM_STAND_IN = f"""\
#!/bin/sh
# What was built is compressed once, rather than in each deployment.
{SAM} "$@" || exit
[ "$1" != build ] ||
    PYTHONPATH={ROOT} exec {sys.executable} -c "from pathlib import Path; {COMPRESS}"
"""


@dataclass
class Reader:
    """A reader who follows the documents in one terminal: what a block sets, the next one has."""

    endpoint: str
    stripe: Stripe
    folder: Path
    project: Path
    secret_key: str = DOUBLE_API_KEY
    left: list[Block] = field(default_factory=lambda: [b for b in BLOCKS if b.reason is None])

    def follow(self, section: str, *typed: str) -> str:
        """Run the blocks of the section that comes next, and return what they print.

        What is typed where a command asks is given line by line.
        """
        assert self.left, f"nothing is left to be run, {section!r} neither"
        assert self.left[0].section == section, f"{self.left[0].section!r} comes before {section!r}"
        printed = ""
        while self.left and self.left[0].section == section:
            printed += self.run(self.left.pop(0).code, *typed)
        return printed

    def step(self, section: str, *typed: str) -> str:
        """Run the next block alone, which is of this section."""
        assert self.left[0].section == section, self.left[0]
        return self.run(self.left.pop(0).code, *typed)

    def answer(self, section: str, answers: Mapping[str, str], interrupt_at: str = "") -> str:
        """Run the next block, which is of this section, in a terminal; return the screen.

        A block that Ctrl-C has interrupted is left to be run again.
        """
        assert self.left[0].section == section, self.left[0]
        script = self._script(self.left[0].code)
        status, screen = run_in_terminal(
            ["bash", "-c", script], answers, interrupt_at, cwd=self.project, env=self.environment
        )
        assert status == (130 if interrupt_at else 0), screen
        if not interrupt_at:
            self.left.pop(0)
        return screen

    def run(self, code: str, *typed: str) -> str:
        """Run commands in bash, which has to succeed, and return what they print."""
        done = self.attempt(code, *typed)
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def refused(self, section: str, code: str) -> subprocess.CompletedProcess[str]:
        """Run the commands of this section that have these words, before they may be run."""
        (block,) = (b for b in self.left if b.section == section and code in b.code)
        return self.fail(block.code)

    def fail(self, code: str) -> subprocess.CompletedProcess[str]:
        """Run commands in bash, the last of which has to fail.

        As in a terminal, a failed command does not stop the ones after it.
        """
        done = self._bash(f"set -a\nsource {self.folder / 'terminal'}\n{code}")
        assert done.returncode != 0, done.stdout
        return done

    def attempt(self, code: str, *typed: str) -> subprocess.CompletedProcess[str]:
        """Run commands in bash."""
        return self._bash(self._script(code), *typed)

    def _script(self, code: str) -> str:
        """The commands, with what the terminal has before, and what it has after them."""
        kept = self.folder / "terminal"
        kept.touch()
        return (
            f"set -aeuo pipefail\nsource {kept}\n{code}\n"
            f'{{ export -p; declare -f; echo cd "$(printf %q "$PWD")"; }} > {kept}\n'
        )

    def _bash(self, script: str, *typed: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", script],  # noqa: S607
            cwd=self.project,
            env=self.environment,
            input="".join(f"{line}\n" for line in typed),
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def environment(self) -> dict[str, str]:
        """What the terminal has from the start: the reader's credentials, and programs."""
        # `sam build` fetches packages, as the caller has set that up; all else is the reader's own.
        kept = {
            k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "SAM_", "STRIPE_"))
        }
        return {
            **kept,
            "PATH": os.pathsep.join([str(self.folder / "bin"), os.environ["PATH"]]),
            "TMPDIR": str(self.folder),
            "NO_PROXY": "localhost,127.0.0.1",
            "no_proxy": "localhost,127.0.0.1",
            "AWS_CONFIG_FILE": str(self.folder / "none"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.folder / "none"),
            "PYTHON": sys.executable,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_SESSION_TOKEN": "",
            "AWS_DEFAULT_REGION": REGION,
            "SAM_CLI_TELEMETRY": "0",
            "SAM_CLI_POLL_DELAY": "0.5",
        }

    def aws(self, service: str) -> Any:
        """A client of the local AWS."""
        return aws_client(self.endpoint, service)

    def variable(self, name: str) -> str:
        """What the terminal has in a variable."""
        return self.run(f'printf %s "${name}"')

    def items(self, table: str | None = None) -> list[dict[str, Any]]:
        """All that the table, or another one, holds, in DynamoDB's form."""
        table = table or self.variable("TABLE")
        found = self.aws("dynamodb").scan(TableName=table, ConsistentRead=True)
        return sorted(found["Items"], key=lambda item: (item["pk"]["S"], item["sk"]["S"]))

    def events(self) -> list[dict[str, Any]]:
        """The events among them."""
        return [item for item in self.items() if item["sk"]["S"] == "EVENT"]

    def all_applied(self, count: int) -> bool:
        """Return whether there are so many events, and each is applied."""
        return [event["state"]["S"] for event in self.events()] == ["applied"] * count

    def is_applied(self, customer: str) -> bool:
        """Return whether an event of a customer is applied."""
        return any(
            event.get("customer_id") == {"S": customer} and event["state"]["S"] == "applied"
            for event in self.events()
        )

    def failed(self) -> list[str]:
        """Ids of the events that have failed."""
        return [e["stripe_id"]["S"] for e in self.events() if e["state"]["S"] == "failed"]

    def resource(self, logical_id: str) -> str:
        """The name of something in the stack."""
        found = self.aws("cloudformation").describe_stack_resource(
            StackName=self.variable("STACK"), LogicalResourceId=logical_id
        )
        name: str = found["StackResourceDetail"]["PhysicalResourceId"]
        return name

    def endpoint_on_stripe(self) -> WebhookEndpoint:
        """The one that the documents create."""
        assert self.stripe.double
        with self.stripe.double.use() as double:
            (endpoint,) = double.webhooks.endpoints.values()
            return endpoint

    def let_an_event_fail(self) -> str:
        """Make one pending, as after forty failed attempts, and have it attempted once more."""
        event = self.events()[0]
        table_name = self.variable("TABLE")
        make_due_for_the_last_time(self.aws("dynamodb"), table_name, event["pk"]["S"])
        schedule = self.resource("ReconcileEvents")
        self.aws("lambda").invoke(FunctionName=schedule, Qualifier="live", Payload=b"{}")
        (failed,) = self.failed()
        return failed

    def logged(self, function: str) -> list[dict[str, Any]]:
        """The lines of a function's log that are its own."""
        found = self.aws("logs").filter_log_events(
            logGroupName=f"/aws/lambda/{self.variable('STACK')}/{function}"
        )
        lines = [event["message"] for event in found["events"]]
        return [json.loads(line) for line in lines if line.startswith('{"level"')]

    def end_workers(self, logical_id: str) -> None:
        """End the processes of a function, as Lambda does every now and then."""
        end_workers(self.folder, self.resource(logical_id))


def wait_until(true: Callable[[], object], what: str) -> None:
    """Wait as long as an event may take through the cloud."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.1)


NOT_RUN = {
    ("README.md", "Try it"): "they take minutes, and are run by themselves",
    ("docs/custom-handlers.md", "Build with them"): (
        "the example needs no packages; tests/tools/test_custom_handlers.py bundles a list"
    ),
    ("docs/custom-handlers.md", "Deploy them"): (
        "it runs until Ctrl-C; tests/local_cloud/test_custom_handlers.py deploys the example"
    ),
    ("docs/deploy.md", "Check the stack"): (
        "tests/local_cloud/test_smoke.py runs it, with the addresses of the local AWS"
    ),
    ("docs/deploy.md", "Choose how events arrive"): (
        "tests/local_cloud/test_ingress.py deploys each of them"
    ),
    ("docs/deploy.md", "Customers that exist on Stripe"): "it changes a deployed stack",
    ("docs/operate.md", "Verifying the table"): "it needs a verification that has finished",
    ("docs/deploy.md", "Let users call it with their JWTs"): (
        "it needs an issuer of JWTs; tests/local_cloud/test_two_authorizers.py deploys with one"
    ),
}


def test_all_commands_are_run() -> None:
    assert {(b.document, b.section): b.reason for b in BLOCKS if b.reason} == NOT_RUN
    fences = {
        f for d in DOCUMENTS for f in re.findall(r"^ *```(\w+)", (ROOT / d).read_text(), re.M)
    }
    assert fences == {"sh", "python", "json"}


@pytest.fixture
def no_faults() -> None:
    """Instead of the fixture that starts the cloud of the other tests."""


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    with ExitStack() as running:
        folder = running.enter_context(work_folder("documents"))
        endpoint = start_local_aws(running, folder)
        used = choose_stripe(running)
        assert used.double, "this test needs the double: unset STRIPE_API_KEY"
        deliver_locally(endpoint, used)
        project = copy_of_the_project(folder)
        configure(project, used)
        stand_ins(folder / "bin", project)
        yield Reader(endpoint, used, folder, project)


def configure(project: Path, used: Stripe) -> None:
    """Let the project be deployed onto the local AWS."""
    adapt(project / "template.yaml")
    # The schedule is called by the test, and else would undo what it does.
    chosen = {**stack_parameters(used), "ReconcileEveryMinutes": "60"}
    parameters = " ".join(f"{name}={value}" for name, value in chosen.items())
    config = project / "samconfig.toml"
    text = config.read_text()
    config.write_text(
        text.replace('parameter_overrides = "', f'parameter_overrides = "{parameters} ')
    )


def stand_ins(folder: Path, project: Path) -> None:
    """Let what the documents call by name reach the local AWS alone."""
    folder.mkdir()
    command_line = STRIPE_CUSTOMERS.format(project=project)
    programs = {"aws": AWS, "sam": SAM_STAND_IN, "stripe-customers": command_line}
    for name, program in programs.items():
        (folder / name).write_text(program)
        (folder / name).chmod(0o755)


def test_commands_do_what_documents_say(reader: Reader) -> None:
    deploy(reader)
    reader.follow("The HTTP API")
    custom_handlers(reader)
    operate(reader)
    assert reader.left == []


def deploy(reader: Reader) -> None:
    section, keys = "Set up the stack", {"Secret key: ": DOUBLE_API_KEY}
    both = {**keys, "Restricted key: ": DOUBLE_API_KEY, "Do this? [y/N]: ": "y"}
    interrupted = reader.answer(section, both, interrupt_at="codeuri")
    assert "interrupted: run setup again to continue" in interrupted
    continued = reader.answer(section, {**keys, "Do this? [y/N]: ": "y"})
    assert "Restricted key: " not in continued
    assert re.search(r"api key +unchanged", continued)
    assert continued.rstrip().endswith("checks, 0 problems")
    assert DOUBLE_API_KEY not in interrupted + continued
    again = reader.run("stripe-customers setup", DOUBLE_API_KEY)
    assert [line.split("\t")[1] for line in again.splitlines()] == ["unchanged"] * 3
    reader.run(f"TABLE={output(reader, 'TableName')}")

    created = fields(reader.step("See the webhook at work"))
    reader.run(f"CUSTOMER={created['stripe_id']}")
    wait_until(lambda: reader.all_applied(1), "the event of the creation is applied")
    assert reader.events()[0]["stripe_id"]["S"] in reader.step("See the webhook at work")
    change(reader, "changed on Stripe")
    seen = reader.step("See the webhook at work")
    assert "changed on Stripe" in seen
    assert all(event["stripe_id"]["S"] in seen for event in reader.events())
    assert json.loads(reader.follow("Call the API"))["stripe_id"] == created["stripe_id"]


def custom_handlers(reader: Reader) -> None:
    write_example(reader.project.parent / "billing-handlers")
    tests = reader.left.pop(0)
    assert tests.section == "Test it"
    # moto replaces AWS's own addresses alone.
    assert "2 passed" in reader.run(f"(unset AWS_ENDPOINT_URL\n{tests.code})")
    reader.follow("Deploy them")
    deployed = reader.aws("lambda").get_function_configuration(
        FunctionName=reader.resource("ApplyEvent"), Qualifier="live"
    )
    given = f"INVOICE_BUCKET={reader.variable('INVOICES')},SENDER={reader.variable('SENDER')}"
    assert deployed["Environment"]["Variables"]["HANDLER_ENVIRONMENT"] == given
    attached = reader.aws("iam").list_attached_role_policies(
        RoleName=deployed["Role"].rpartition("/")[2]
    )
    arns = [policy["PolicyArn"] for policy in attached["AttachedPolicies"]]
    assert reader.variable("POLICY") in arns


def operate(reader: Reader) -> None:
    reader.follow("")
    replay(reader)
    walk(reader)
    verify(reader)
    dead_letters(reader)
    roll_the_webhook_secret(reader)
    roll_the_api_key(reader)
    change_the_api_version(reader)
    follow_a_request(reader)
    reader.follow("Deploying step by step")
    close(reader)
    restore(reader)
    erase(reader)
    upgrade(reader)
    take_down(reader)


def replay(reader: Reader) -> None:
    failed = reader.let_an_event_fail()
    with refused_database(reader, "ReplayEvents"):
        assert "error: " in reader.refused("Replaying events", "--failed").stderr
    assert reader.failed() == [failed]
    listed, replayed = reader.step("Replaying events").splitlines()
    assert listed.startswith(f"{failed}\t")
    assert replayed == "replayed\t1"
    assert reader.all_applied(2)

    reader.let_an_event_fail()
    assert reader.step("Replaying events") == "replayed\t2\n"
    assert reader.all_applied(2)


def fields(printed: str) -> dict[str, str]:
    """What a command has printed of one thing."""
    return dict(line.split("\t") for line in printed.splitlines())


def walk(reader: Reader) -> None:
    section = "Walking the account"
    ended = fields(reader.step(section))
    assert ended["state"] == "finished"
    assert int(ended["objects"]) > 0
    assert fields(reader.step(section)) == ended
    assert fields(reader.step(section)) == ended
    assert reader.step(section) == ""


def verify(reader: Reader) -> None:
    section = "Verifying the table"
    ended = fields(reader.step(section))
    assert (ended["state"], ended["differences"]) == ("finished", "none")
    assert reader.step(section) == ""


def dead_letters(reader: Reader) -> None:
    failed = reader.let_an_event_fail()
    letters = [line.split("\t") for line in reader.step("Dead letters").splitlines()]
    assert failed in [letter[0] for letter in letters]

    with refused_database(reader, "ReplayEvents"):
        reader.refused("Dead letters", "--purge")
    assert dead_letters_left(reader)
    with event_that_stays_failed(reader):
        assert "evt_stays" in reader.refused("Dead letters", "--purge").stderr
    assert dead_letters_left(reader)

    reader.step("Dead letters")
    assert reader.all_applied(2)
    assert not dead_letters_left(reader)


def dead_letters_left(reader: Reader) -> int:
    """Return how many messages the dead-letter queue has."""
    queue = reader.aws("sqs").get_queue_attributes(
        QueueUrl=output(reader, "DeadLettersUrl"), AttributeNames=["All"]
    )
    names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
    return sum(int(queue["Attributes"][name]) for name in names)


@contextmanager
def refused_database(reader: Reader, logical_id: str) -> Iterator[None]:
    """Deny one function all calls to DynamoDB, so that it fails."""
    function = reader.aws("lambda").get_function_configuration(
        FunctionName=reader.resource(logical_id)
    )
    policy = {"RoleName": function["Role"].rpartition("/")[2], "PolicyName": "refused"}
    statement = {"Effect": "Deny", "Action": "dynamodb:*", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    reader.aws("iam").put_role_policy(**policy, PolicyDocument=document)
    try:
        yield
    finally:
        reader.aws("iam").delete_role_policy(**policy)


@contextmanager
def another_table(reader: Reader) -> Iterator[None]:
    """Set the terminal's `TABLE` to the name of a table that does not exist."""
    reader.run("OF_THIS_STACK=$TABLE TABLE=another")
    yield
    reader.run("TABLE=$OF_THIS_STACK")


@contextmanager
def event_that_stays_failed(reader: Reader) -> Iterator[None]:
    """Store a failed event that no replay applies."""
    key = {"pk": {"S": "EVENT#evt_stays"}, "sk": {"S": "EVENT"}}
    numbers = {"next_attempt": "9999999999", "created": "1", "attempts": "41", "turn": "41"}
    texts = {
        "queue": "failed",
        "state": "failed",
        "record_type": "Event",
        "kind": "customer.updated",
    }
    failed = {name: {"N": number} for name, number in numbers.items()}
    failed |= {name: {"S": text} for name, text in {**texts, "stripe_id": "evt_stays"}.items()}
    table = reader.variable("TABLE")
    reader.aws("dynamodb").put_item(TableName=table, Item={**key, **failed})
    try:
        yield
    finally:
        reader.aws("dynamodb").delete_item(TableName=table, Key=key)


def roll_the_webhook_secret(reader: Reader) -> None:
    old, new = reader.endpoint_on_stripe().secrets[0], "whsec_new"
    reader.endpoint_on_stripe().secrets = [new, old]
    change(reader, "while it is rolled")
    assert fields(reader.step("Rolling the webhook's signing secret", new)) == {
        "stored_secrets": "2"
    }
    reader.end_workers("LinkCustomer")
    change(reader, "with both")

    reader.endpoint_on_stripe().secrets = [new]
    change(reader, "with the new one alone")
    reader.answer("Rolling the webhook's signing secret", {"[y/N]": "y"})
    reader.end_workers("LinkCustomer")
    change(reader, "and the old one is gone")


def change(reader: Reader, description: str) -> None:
    """Change the customer on Stripe, and see that the webhook updates the record."""
    known = len(reader.events())
    client = StripeClient(reader.secret_key, base_addresses={"api": reader.stripe.api_base})
    client.v1.customers.update(reader.variable("CUSTOMER"), {"description": description})
    wait_until(lambda: reader.all_applied(known + 1), f"the change is applied {description}")


def roll_the_api_key(reader: Reader) -> None:
    assert reader.stripe.double
    with reader.stripe.double.use() as double:
        double.api_keys = {reader.secret_key, "sk_test_new"}
    reader.step("Rolling the API key", "sk_test_new")
    with reader.stripe.double.use() as double:
        double.api_keys = {"sk_test_new"}
    reader.run("api /customers/user-1/sync -X POST")
    reader.secret_key = "sk_test_new"


def change_the_api_version(reader: Reader) -> None:
    """Follow the steps of an upgrade whose release is already deployed."""
    old = reader.endpoint_on_stripe()
    old.api_version = "2024-06-20"
    change(reader, "in the old version")
    # The status is 1, since the old endpoint is a problem.
    created = reader.attempt(reader.left.pop(0).code, reader.secret_key)
    assert created.returncode == 1, created.stderr
    assert old.id in created.stdout
    reader.run(f"export STRIPE_API_KEY={reader.secret_key}")
    reader.end_workers("LinkCustomer")
    assert reader.stripe.double
    with reader.stripe.double.use() as double:
        versions = {e.id: e.api_version for e in double.webhooks.endpoints.values()}
        events = {e.id: e.enabled_events for e in double.webhooks.endpoints.values()}
    assert sorted(versions.values(), key=str) == ["2024-06-20", VERSION]
    assert len({tuple(sorted(types)) for types in events.values()}) == 1
    for number in range(3):
        change(reader, f"in both versions {number}")
    reader.step("Changing to another API version", old.id)
    reader.end_workers("LinkCustomer")
    assert reader.endpoint_on_stripe().api_version == VERSION
    change(reader, "in the new version")
    customer = json.loads(reader.run("api /customers/user-1"))
    assert customer["description"] == "in the new version"


def follow_a_request(reader: Reader) -> None:
    asked = next(line for line in reader.logged("create-customer") if "stripe_request_id" in line)
    ids = [asked["function_request_id"], asked["stripe_request_id"]]
    ids += [event["stripe_id"]["S"] for event in reader.events()]
    reader.run(f"ID={asked['correlation_id']}")
    shown = reader.step("Tracing one request")
    assert asked["stripe_request_id"] in shown
    for wanted in ids:
        assert wanted in reader.run(f"logs {wanted}")


def close(reader: Reader) -> None:
    before = parameters(reader)
    reader.step("Closing for maintenance")
    assert parameters(reader) == {**before, "Closed": "true"}
    reader.step("Closing for maintenance")
    assert parameters(reader) == before


def output(reader: Reader, name: str) -> str:
    """An output of the stack."""
    found = reader.aws("cloudformation").describe_stacks(StackName=reader.variable("STACK"))
    outputs: dict[str, str] = {
        o["OutputKey"]: o["OutputValue"] for o in found["Stacks"][0]["Outputs"]
    }
    return outputs[name]


def parameters(reader: Reader) -> dict[str, str]:
    """What the stack is deployed with."""
    found = reader.aws("cloudformation").describe_stacks(StackName=reader.variable("STACK"))
    return {p["ParameterKey"]: p["ParameterValue"] for p in found["Stacks"][0]["Parameters"]}


def restore(reader: Reader) -> None:
    later = json.loads(reader.run(f"api /customers -d {shlex.quote(LATER_USER)}"))
    wait_until(lambda: reader.is_applied(later["stripe_id"]), "its event is applied")

    items, empty = reader.items(), "--empty-target"
    assert "not closed" in reader.refused("Restoring the table", empty).stderr
    reader.step("Restoring the table")
    assert parameters(reader)["Closed"] == "true"
    with another_table(reader):
        assert "another table" in reader.refused("Restoring the table", empty).stderr
    assert reader.items() == items
    reader.step("Restoring the table")
    restored = f"{reader.variable('TABLE')}-restored"
    # The local AWS restores what is there now: what came after the moment is taken out.
    for item in reader.items(restored):
        if later["stripe_id"] in str(item) or "later" in item["pk"]["S"]:
            key = {"pk": item["pk"], "sk": item["sk"]}
            reader.aws("dynamodb").delete_item(TableName=restored, Key=key)
    reader.step("Restoring the table")
    assert users(reader) == {"user-1"}

    append_to_log_of_erasures(reader, "cus_erased1")
    # Stripe does not know it.
    assert reader.step("Restoring the table") == "cus_erased1\trefused\n"
    assert users(reader) == {"user-1"}

    rebuilt = fields(reader.step("Restoring the table"))
    assert (rebuilt["state"], rebuilt["stored"]) == ("finished", "1")
    assert users(reader) == {"user-1", "later"}
    reader.step("Restoring the table")
    assert parameters(reader)["Closed"] == "false"
    again = json.loads(reader.run(f"api /customers -d {shlex.quote(LATER_USER)}"))
    assert again["stripe_id"] == later["stripe_id"]
    assert reader.stripe.double
    with reader.stripe.double.use() as double:
        made = double.customers_by_metadata("stripe_integrations_user_id")
    assert made == {"user-1": 1, "later": 1}
    reader.step("Restoring the table")
    assert restored not in reader.aws("dynamodb").list_tables()["TableNames"]


def append_to_log_of_erasures(reader: Reader, customer_id: str) -> None:
    reader.aws("logs").put_log_events(
        logGroupName=reader.variable("ERASURES"),
        logStreamName="erasures",
        logEvents=[{"timestamp": int(time.time() * 1000), "message": customer_id}],
    )


def users(reader: Reader) -> set[str]:
    """The users that have a customer."""
    claims = [item["pk"]["S"] for item in reader.items() if item["sk"]["S"] == "CLAIM"]
    return {claim.removeprefix("USER#") for claim in claims}


def erase(reader: Reader) -> None:
    customer = reader.variable("CUSTOMER")
    reader.step("Erasing a user", "user-1")
    exported = [json.loads(line) for line in reader.run("cat user.jsonl").splitlines()]
    assert {"Customer", "CustomerClaim", "Event", "Pointer"} <= {
        item["record_type"] for item in exported
    }
    assert reader.step("Erasing a user", "user-1") == f"{customer}\tdone\n"
    assert users(reader) == {"later"}
    left = str(reader.items())
    assert "user-1" not in left
    assert "later" in left
    logged = reader.aws("logs").filter_log_events(logGroupName=reader.variable("ERASURES"))
    assert customer in [event["message"] for event in logged["events"]]


def upgrade(reader: Reader) -> None:
    assert reader.step("Upgrading").split()[-1] == "0"


def take_down(reader: Reader) -> None:
    table = reader.variable("TABLE")
    reader.step("Taking a stack down")
    assert reader.items()
    reader.step("Taking a stack down")
    assert table not in reader.aws("dynamodb").list_tables()["TableNames"]
    reader.step("Taking a stack down")
    secrets = reader.aws("secretsmanager").list_secrets()["SecretList"]
    assert not [secret["Name"] for secret in secrets if "DeletedDate" not in secret]
