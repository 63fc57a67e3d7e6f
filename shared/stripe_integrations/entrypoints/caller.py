"""The caller of the API: whom it may act for and what it may set, by the route's authorizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from stripe_integrations.config import Authorizer
from stripe_integrations.context import current
from stripe_integrations.errors import ForbiddenError, ForbiddenFieldError, InvalidFieldError
from stripe_integrations.models.fields import value_at

OWN_FIELDS = frozenset(
    {"billing_email", "name", "phone", "address", "shipping", "preferred_locales"}
)
"""What users may set of their own customer; money and metadata are for the backend."""


@dataclass(frozen=True)
class Caller:
    """The caller of the API.

    Parameters
    ----------
    is_trusted : bool
        Whether it may act for every user and set every field: a backend that signs with IAM, or a
        token with the admin scope.
    subject : object
        The one user that any other token may act for.
    """

    is_trusted: bool
    subject: object = field(default=None, repr=False)

    @classmethod
    def of(cls, event: Mapping[str, object]) -> Caller:
        """Read the caller from an event, as the authorizer of its route has established it.

        Raises
        ------
        ForbiddenError
            The request did not pass exactly the authorizer that the API's routes demand.
        """
        demanded = current().settings.api_authorizer
        if demanded is Authorizer.NONE:
            return cls(is_trusted=True)
        authorizer = value_at(event, "requestContext", "authorizer")
        passed = value_at(authorizer, demanded)
        if not isinstance(authorizer, Mapping) or len(authorizer) != 1 or passed is None:
            raise ForbiddenError(f"the request has not passed the {demanded} authorizer")
        if demanded is Authorizer.IAM:
            return cls(is_trusted=True)
        return cls(is_trusted=_is_admin(passed), subject=value_at(passed, "claims", "sub"))

    def user_id(self, given: object) -> str:
        """Return the user of a request, for whom the caller may act.

        Raises
        ------
        ForbiddenError
            The caller's token is another user's.
        InvalidFieldError
            It is not a non-empty string.
        """
        if not self.is_trusted and (given is None or given != self.subject):
            raise ForbiddenError("the token is not this user's")
        if not isinstance(given, str) or not given:
            reason = "is missing" if given is None else "must be a non-empty string"
            raise InvalidFieldError("user_id", reason)
        return given

    def require_fields(self, names: Iterable[str]) -> None:
        """Refuse fields that the caller may not set.

        Raises
        ------
        ForbiddenFieldError
            The caller's token has no admin scope, and fields are not the user's own to set.
        """
        if self.is_trusted:
            return
        reason = "can't be set with a user's token"
        refused = [(name, reason) for name in names if name not in OWN_FIELDS]
        if refused:
            first, *others = refused
            raise ForbiddenFieldError(*first, *others)


def _is_admin(token: object) -> bool:
    """Return whether a token has the admin scope, in `scope` (a string) or `scp` (string or list).

    API Gateway passes a list as a string in brackets.
    """
    wanted = current().settings.jwt_admin_scope
    scope, scp = (value_at(token, "claims", name) for name in ("scope", "scp"))
    if isinstance(scp, str) and scp.startswith("[") and scp.endswith("]"):
        scp = scp[1:-1]
    return wanted is not None and any(
        wanted in scopes.split(" ") for scopes in (scope, scp) if isinstance(scopes, str)
    )
