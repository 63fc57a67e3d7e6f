"""What every command has: the stack, the output, and how it ends."""

from __future__ import annotations

import inspect
import logging
import os
import sys
from collections.abc import Callable
from functools import cached_property, wraps
from typing import Annotated, Any

import boto3
import typer
from botocore.exceptions import BotoCoreError, ClientError

from stripe_integrations.errors import StripeIntegrationsError
from stripe_integrations_cli.errors import CommandError, ExitCode, UsageError
from stripe_integrations_cli.output import Output
from stripe_integrations_cli.stack import Stack


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
        self._stack_name = stack_name
        # The Python API makes clients of its own, which read these.
        if profile:
            os.environ["AWS_PROFILE"] = profile
        if region:
            os.environ["AWS_REGION"] = os.environ["AWS_DEFAULT_REGION"] = region
        self.output = Output(as_json=as_json)

    @cached_property
    def stack(self) -> Stack:
        """The stack; it is looked up on first use."""
        if not self._stack_name:
            raise UsageError("which stack? give --stack NAME, or set STACK")
        return Stack(self._stack_name, boto3.Session())

    def confirm(self, question: str, *, is_confirmed: bool) -> None:
        """Ask before something is destroyed.

        Parameters
        ----------
        question : str
            What will happen.
        is_confirmed : bool
            Whether `--yes` was given.

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
            raise CommandError("nothing was changed")


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
    typer.Option("--region", help="As for the AWS CLI.", rich_help_panel=_EVERYWHERE),
]
ProfileOption = Annotated[
    str | None,
    typer.Option("--profile", help="As for the AWS CLI.", rich_help_panel=_EVERYWHERE),
]
JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print JSON, one object a line.", rich_help_panel=_EVERYWHERE),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]


def command(app: typer.Typer, name: str) -> Callable[[Command], Command]:
    """Register a command: it takes a session first, and has the options of every command.

    An error that is expected is printed as one line, and becomes the exit status.

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
                function(session, **given)
            except CommandError as error:
                session.output.fail(str(error))
                raise typer.Exit(error.code) from None
            except (StripeIntegrationsError, BotoCoreError) as error:
                session.output.fail(f"{type(error).__name__}: {error}")
                raise typer.Exit(ExitCode.FAILED) from None
            except ClientError as error:
                session.output.fail(_refused(error))
                raise typer.Exit(ExitCode.FAILED) from None
            except Exception as error:
                if not _is_of_stripes_library(error):
                    raise
                session.output.fail(f"Stripe: {getattr(error, 'user_message', None) or error}")
                raise typer.Exit(ExitCode.FAILED) from None
            except KeyboardInterrupt:
                raise typer.Exit(ExitCode.INTERRUPTED) from None
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


def _is_of_stripes_library(error: Exception) -> bool:
    """Whether Stripe's library has raised it, which most commands don't import."""
    return type(error).__module__.partition(".")[0] == "stripe"


def _refused(error: ClientError) -> str:
    """What AWS refused, and why: its code, and its message for the operator."""
    details = error.response["Error"]
    return f"AWS refused {error.operation_name}: {details['Code']}: {details.get('Message', '')}"
