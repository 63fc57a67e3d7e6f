"""What all AWS clients share: their configuration, calls, and why one got no response."""

from __future__ import annotations

from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any

from botocore import exceptions

from stripe_integrations.errors import StripeIntegrationsError

if TYPE_CHECKING:
    from botocore.config import Config
    from botocore.session import Session

CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 1, 4, 2


def client_config() -> Config:
    """Time-outs and retries of a client; botocore is imported only when a client is made."""
    from botocore.config import Config  # noqa: PLC0415

    return Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": ATTEMPTS},
    )


_clients: dict[str, Any] = {}
_making = Lock()


def client(service: str) -> Any:
    """The client of a service, made at its first call.

    botocore makes it, on which boto3 is built: its resources and transfers are not needed, and
    importing them would slow every cold start.
    """
    with _making:  # a session can't make two clients at a time
        if service not in _clients:
            _clients[service] = _session().create_client(service, config=client_config())
    return _clients[service]


@cache
def _session() -> Session:
    from botocore.session import get_session  # noqa: PLC0415

    return get_session()


def forget_clients() -> None:
    """Make the clients again at their next calls, from what the environment has then."""
    _clients.clear()
    _session.cache_clear()


def close_connections() -> None:
    """Close the idle connections of the clients, which open others at their next calls."""
    for each in _clients.values():
        each.close()


def call(
    service: str, operation: str, failure: type[StripeIntegrationsError], **arguments: Any
) -> dict[str, Any]:
    """Call a service.

    Parameters
    ----------
    service, operation : str
        As botocore names them.
    failure : type
        What is raised with AWS's error code, without its message, which may quote the request.
    **arguments
        The operation's.

    Returns
    -------
    dict
        The response.
    """
    try:
        response: dict[str, Any] = getattr(client(service), operation)(**arguments)
    except exceptions.ClientError as error:
        raise failure(f"{service}: {error.response['Error']['Code']}") from error
    except exceptions.BotoCoreError as error:
        raise failure(f"{service}: {type(error).__name__}") from error
    return response


def is_misconfigured(error: object) -> bool:
    """Return whether a request could not be sent: credentials, region or endpoint are missing.

    Where the endpoint can't be reached or does not respond, a later request may succeed.
    """
    is_unreachable = isinstance(error, exceptions.HTTPClientError | exceptions.ConnectionError)
    return isinstance(error, exceptions.BotoCoreError) and not is_unreachable
