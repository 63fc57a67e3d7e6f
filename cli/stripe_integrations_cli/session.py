"""What every command has: the stack, the output, and how it ends."""

from __future__ import annotations

import inspect
import logging
import os
import sys
from collections.abc import Callable, Mapping
from functools import cached_property, wraps
from typing import Annotated, Any

import boto3
import typer
from botocore.exceptions import BotoCoreError, ClientError

from stripe_integrations.errors import InvalidFieldError, StripeIntegrationsError
from stripe_integrations_cli.errors import CommandError, ExitCode, UsageError
from stripe_integrations_cli.output import Output
from stripe_integrations_cli.stack import Stack

_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


class Session:
    """A call of the command line.

    Parameters
    ----------
    stack_name, region, profile : str or None
        As they were given.
    as_json : bool
        Whether results are printed as JSON.
    """

    def __init__(
        self, stack_name: str | None, region: str | None, profile: str | None, *, as_json: bool
    ) -> None:
        self.stack_name = stack_name
        # The Python API makes clients of its own, which read these.
        if profile:
            os.environ["AWS_PROFILE"] = profile
            # The option takes precedence over keys in the environment, as in the AWS CLI.
            for variable in _KEYS:
                os.environ.pop(variable, None)
        # boto3 itself does not read AWS_REGION.
        if region := region or os.environ.get("AWS_REGION"):
            os.environ["AWS_REGION"] = os.environ["AWS_DEFAULT_REGION"] = region
        self.output = Output(as_json=as_json)

    @cached_property
    def stack(self) -> Stack:
        """The stack; it is looked up on first use."""
        if not self.stack_name:
            raise UsageError("which stack? give --stack NAME, or set STACK")
        return Stack(self.stack_name, self.aws)

    @cached_property
    def aws(self) -> boto3.Session:
        """The operator's credentials and region."""
        return boto3.Session()

    def confirm(
        self, question: str, *, is_confirmed: bool, refused: str = "nothing was changed"
    ) -> None:
        """Ask before a deletion, or another change.

        Parameters
        ----------
        question : str
            What will happen.
        is_confirmed : bool
            Whether `--yes` was given.
        refused : str
            What a no means.

        Raises
        ------
        UsageError
            There is no terminal to ask at.
        CommandError
            The answer was no.
        """
        if is_confirmed:
            return
        if not sys.stdin.isatty():
            raise UsageError("this asks for confirmation: without a terminal, give --yes")
        if not typer.confirm(question, err=True):
            raise CommandError(refused)


Command = Callable[..., Any]

_EVERYWHERE = "Options of every command"

StackOption = Annotated[
    str | None,
    typer.Option(
        "--stack",
        envvar="STACK",
        metavar="NAME",
        help="The CloudFormation stack.",
        rich_help_panel=_EVERYWHERE,
    ),
]
RegionOption = Annotated[
    str | None,
    typer.Option("--region", help="The AWS region.", rich_help_panel=_EVERYWHERE),
]
ProfileOption = Annotated[
    str | None,
    typer.Option("--profile", help="The profile of the AWS CLI.", rich_help_panel=_EVERYWHERE),
]
JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print JSON, one object a line.", rich_help_panel=_EVERYWHERE),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask for confirmation.")]


def command(app: typer.Typer, name: str) -> Callable[[Command], Command]:
    """Register a function as a command, with the options that every command has.

    The function's first argument is the session. An expected error is printed as one line, and
    becomes the exit status.

    Parameters
    ----------
    app : typer.Typer
        The group that it belongs to.
    name : str
        What it is called.
    """

    def register(function: Command) -> Command:
        @wraps(function)
        def run(
            stack: str | None, region: str | None, profile: str | None, as_json: bool, **given: Any
        ) -> None:
            session = Session(stack, region, profile, as_json=as_json)
            # The actions log as JSON, to where the results are printed.
            logging.disable(logging.CRITICAL)
            try:
                _require_text(given)
                function(session, **given)
            except (KeyboardInterrupt, typer.Abort):
                raise typer.Exit(ExitCode.INTERRUPTED) from None
            except Exception as error:
                message = explained(error)
                if message is None:
                    raise
                session.output.fail(message)
                raise typer.Exit(_exit_code(error)) from None
            finally:
                logging.disable(logging.NOTSET)

        _, *own = inspect.signature(function, eval_str=True).parameters.values()
        shared = [
            inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
            for option, kind in (
                ("stack", StackOption),
                ("region", RegionOption),
                ("profile", ProfileOption),
            )
        ]
        shared.append(
            inspect.Parameter(
                "as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=JsonOption
            )
        )
        parameters = [*own, *shared]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        app.command(name)(run)
        return run

    return register


def _require_text(given: Mapping[str, Any]) -> None:
    """Refuse arguments whose bytes are not UTF-8: neither AWS nor Stripe has such ids."""
    for value in given.values():
        for each in value if isinstance(value, list) else (value,):
            try:
                str(each).encode()
            except UnicodeEncodeError:
                raise UsageError("an argument is not UTF-8") from None


def explained(error: Exception) -> str | None:
    """Return an expected error as one line for the operator; None if it is a bug."""
    named = f"{type(error).__name__}: {error}"
    match error:
        case CommandError():
            return str(error)
        case StripeIntegrationsError():
            # Which permission is missing, for example.
            reason = getattr(error.__cause__, "cause_response_message", None)
            return f"{named}: {reason}" if reason else named
        case BotoCoreError():
            return named
        case ClientError():
            return _refused(error)
        case OSError() if not isinstance(error, BrokenPipeError):  # Typer ends quietly then
            return str(error)
    return _stripe_message(error)


def _refused(error: ClientError) -> str:
    """What AWS refused, and why: its code, and its message for the operator."""
    details = error.response["Error"]
    return f"AWS refused {error.operation_name}: {details['Code']}: {details.get('Message', '')}"


def _stripe_message(error: Exception) -> str | None:
    """The message of an error of Stripe's library, which most commands don't import; else None."""
    if type(error).__module__.partition(".")[0] != "stripe":
        return None
    return f"Stripe: {getattr(error, 'user_message', None) or error}"


def _exit_code(error: Exception) -> ExitCode:
    if isinstance(error, CommandError):
        return error.code
    # The actions check what they are given before they do anything.
    return ExitCode.USAGE if isinstance(error, InvalidFieldError) else ExitCode.FAILED
