"""The folder of custom handlers: what a build reads from it, refuses and bundles."""

from __future__ import annotations

import runpy
import subprocess
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import stripe
from stripe.events._event_classes import _V2_EVENT_CLASS_LOOKUP

from tools import bundle
from tools.custom_handlers import CustomHandlers
from tools.template import ROOT

PACKAGES = Path(stripe.__file__).parent.parent
"""Where the release of Stripe's library is installed that is bundled too."""
SNAPSHOT_TYPES = typing.get_args(stripe.Event.__annotations__["type"])
THIN_TYPES = sorted(_V2_EVENT_CLASS_LOOKUP)
DECLARATION = {
    "stripe_event_handlers.py": (
        "from billing.types import PAID\n"
        'print("loading")\n'
        'HANDLERS = {PAID: "billing.hooks:on_paid"}\n'
        'SERVICES = ("ses", "s3")\n'
    ),
    "billing/__init__.py": "",
    "billing/types.py": 'PAID = "invoice.paid"\n',
    "billing/hooks.py": "import of_a_layer\ndef on_paid(event, customer): ...\n",
}

Write = Callable[[Mapping[str, str]], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write files into the folder of custom handlers that the build uses."""

    def write(files: Mapping[str, str]) -> Path:
        folder = tmp_path / "handlers"
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        monkeypatch.setenv("EVENT_HANDLERS", str(folder))
        return folder

    return write


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Sequence[Path]]:
    """The requirements files whose packages were installed; nothing is downloaded."""
    lists: list[Sequence[Path]] = []

    def install(requirements_files: Sequence[Path], target: Path, pip: Path) -> None:
        lists.append(requirements_files)
        for name in (
            "dynamodb",
            "ec2",
            "events",
            "logs",
            "s3",
            "secretsmanager",
            "ses",
            "sqs",
            "ssm",
        ):
            for library in ("botocore", "boto3"):
                (target / library / "data" / name).mkdir(parents=True)
        (target / "botocore" / "data" / "endpoints.json").write_text('{"partitions": []}')
        (target / "stripe").mkdir()
        (target / "stripe" / "_object_classes.py").write_text("")
        (target / "stripe" / "__init__.py").write_text(
            'from typing import Literal\nclass Event:\n    type: Literal["invoice.paid"]\n'
        )

    monkeypatch.setattr(bundle, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(bundle, "install", install)
    return lists


def bundled(function: str, tmp_path: Path) -> Path:
    target = tmp_path / function
    bundle.main(function, "function", str(target))
    return target


def models(target: Path) -> set[str]:
    return {path.name for path in (target / "botocore" / "data").iterdir() if path.is_dir()}


@pytest.mark.usefixtures("installed")
class TestBundle:
    @pytest.mark.parametrize("function", bundle.RUN_HANDLERS)
    def test_of_function_that_applies_events_has_handlers(
        self, write: Write, tmp_path: Path, function: str
    ) -> None:
        write(DECLARATION)
        target = bundled(function, tmp_path)
        for name, text in DECLARATION.items():
            assert (target / name).read_text() == text
        assert (target / "stripe_integrations" / "config.py").is_file()
        assert models(target) == {*bundle.services(function), "ses", "s3"}
        assert (target / "boto3" / "data" / "s3").is_dir()

    def test_of_webhook_has_declaration_only(self, write: Write, tmp_path: Path) -> None:
        write(DECLARATION)
        target = bundled("link_customer", tmp_path)
        declared = runpy.run_path(str(target / "stripe_event_handlers.py"))
        assert declared["HANDLERS"] == {"invoice.paid": "billing.hooks:on_paid"}
        assert not (target / "billing").exists()
        assert not (target / "boto3").exists()
        assert models(target) == bundle.services("link_customer")

    def test_of_other_function_has_no_handlers(self, write: Write, tmp_path: Path) -> None:
        write(DECLARATION)
        target = bundled("get_customer", tmp_path)
        assert not (target / "stripe_event_handlers.py").exists()
        assert not (target / "billing").exists()
        assert models(target) == bundle.services("get_customer")

    def test_without_folder_has_no_handlers(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("EVENT_HANDLERS", raising=False)
        target = bundled("apply_event", tmp_path)
        assert not (target / "stripe_event_handlers.py").exists()
        assert models(target) == bundle.services("apply_event")

    def test_leaves_out_tests_and_hidden_files(self, write: Write, tmp_path: Path) -> None:
        write(DECLARATION)
        left_out = dict.fromkeys(
            (
                ".git/HEAD",
                ".env",
                "conftest.py",
                "requirements.in",
                "requirements.txt",
                "test_hooks.py",
                "tests/test_more.py",
                "billing/test_types.py",
                "billing/__pycache__/types.pyc",
            ),
            "",
        )
        write({**left_out, "billing/mail.html": "<p>"})
        target = bundled("apply_event", tmp_path)
        assert not [name for name in left_out if (target / name).exists()]
        assert (target / "billing" / "mail.html").is_file()

    def test_has_packages_of_its_requirements(
        self, write: Write, tmp_path: Path, installed: list[Sequence[Path]]
    ) -> None:
        folder = write(DECLARATION)
        bundled("apply_event", tmp_path)
        write({"requirements.txt": "jinja2==3.1.6 --hash=sha256:00\n"})
        for function in ("apply_event", "link_customer"):
            bundled(function, tmp_path)
        of_product = ROOT / "requirements" / "function.txt"
        assert installed == [[of_product], [of_product, folder / "requirements.txt"]]

    def test_change_reaches_next_bundle(self, write: Write, tmp_path: Path) -> None:
        write(DECLARATION)
        bundled("apply_event", tmp_path)
        write(
            {
                "billing/types.py": 'PAID = "invoice.*"\n',
                "stripe_event_handlers.py": (
                    'from billing.types import PAID\nHANDLERS = {PAID: "billing.hooks:on_paid"}\n'
                ),
            }
        )
        target = bundled("apply_event", tmp_path)
        assert "invoice.*" in (target / "billing" / "types.py").read_text()
        assert models(target) == bundle.services("apply_event")


@pytest.mark.usefixtures("installed")
class TestRefusal:
    @pytest.mark.parametrize(
        ("files", "why"),
        [
            ({"stripe_event_handlers.py": "import stripe\n"}, "No module named 'stripe'"),
            ({"stripe_event_handlers.py": "SERVICES = ()\n"}, "HANDLERS must map"),
            ({"stripe_event_handlers.py": "HANDLERS = {}\nSERVICES = 's3'\n"}, "SERVICES must be"),
            ({"stripe_event_handlers.py": "HANDLERS = {}\nSERVICES = ['s4']\n"}, "no service s4"),
            (
                {"stripe_event_handlers.py": "HANDLERS = {'invoice.paid': 'hooks.paid:on'}\n"},
                "no module for hooks.paid:on",
            ),
            (
                {"stripe_event_handlers.py": "HANDLERS = {'invoice.payed': 'billing:on'}\n"},
                "matches invoice.payed",
            ),
            ({"app.py": ""}, "app.py: the bundle already has a file of this name"),
            ({"stripe/__init__.py": ""}, "stripe: the bundle already has"),
        ],
    )
    def test_invalid_folder_is_refused_with_reason(
        self, write: Write, tmp_path: Path, files: dict[str, str], why: str
    ) -> None:
        write({**DECLARATION, **files})
        with pytest.raises(SystemExit, match=why):
            bundled("apply_event", tmp_path)

    def test_folder_without_declaration_is_refused(self, write: Write, tmp_path: Path) -> None:
        write({"hooks.py": ""})
        with pytest.raises(SystemExit, match=r"has no stripe_event_handlers\.py"):
            bundled("link_customer", tmp_path)


class TestTypes:
    """Compared with the bundled release of Stripe's library."""

    def check(self, *patterns: str) -> None:
        handlers = dict.fromkeys(patterns, "billing:on")
        CustomHandlers(Path(), handlers, ()).check_types(PACKAGES, ROOT / "shared")

    def test_types_of_snapshot_events_are_accepted(self) -> None:
        assert "customer.subscription.updated" in SNAPSHOT_TYPES
        self.check(*SNAPSHOT_TYPES, "invoice.*", "customer.subscription.*")

    def test_types_of_thin_events_are_refused(self) -> None:
        assert len(THIN_TYPES) > 100
        assert "v1.customer.subscription.past_due" in THIN_TYPES
        with pytest.raises(SystemExit) as refused:
            self.check(*THIN_TYPES)
        named = str(refused.value).partition("matches ")[2].partition(":")[0].split(", ")
        assert named == THIN_TYPES

    @pytest.mark.parametrize(
        "pattern", ["v2.*", "v1.customer.*", "customer.subscription.past_due", "invoice.payed"]
    )
    def test_unknown_types_are_refused(self, pattern: str) -> None:
        with pytest.raises(SystemExit, match="misspelled, or it is a thin event's"):
            self.check("invoice.paid", pattern)


def test_build_takes_folder_from_environment() -> None:
    """`sam build` runs build.mk in the project's folder, with the caller's environment."""
    done = subprocess.run(
        ["make", "-f", "build.mk", "build-LinkCustomer", "ARTIFACTS_DIR=/nowhere"],  # noqa: S607
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "EVENT_HANDLERS": "/"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "EVENT_HANDLERS: / has no stripe_event_handlers.py" in done.stderr
