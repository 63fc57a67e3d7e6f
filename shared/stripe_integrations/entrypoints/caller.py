"""The caller of the API: whom it may act for and what it may set, by the route's authorizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from stripe_integrations.config import Authorizer
from stripe_integrations.context import current
from stripe_integrations.entrypoints.user_in_url import is_me_route
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
    def from_event(cls, event: Mapping[str, object]) -> Caller:
        """Read the caller from an event, as the authorizer of its route has established it.

        The routes `/me` require a JWT in every deployment; the admin scope has no effect there.

        Raises
        ------
        ForbiddenError
            The request was not authorized by exactly the authorizer that its route requires.
        """
        is_me = is_me_route(event)
        required = Authorizer.JWT if is_me else current().settings.api_authorizer
        if required is Authorizer.NONE:
            return cls(is_trusted=True)
        authorizer = value_at(event, "requestContext", "authorizer")
        passed = value_at(authorizer, required)
        if not isinstance(authorizer, Mapping) or len(authorizer) != 1 or passed is None:
            raise ForbiddenError(f"the request was not authorized by the {required} authorizer")
        if required is Authorizer.IAM:
            return cls(is_trusted=True)
        is_trusted = not is_me and _is_admin(passed)
        return cls(is_trusted, subject=value_at(passed, "claims", "sub"))

    def authorize_user(self, user_id: object) -> str:
        """Return the id of a request's user, if the caller may act for this user.

        Raises
        ------
        ForbiddenError
            The caller's token belongs to another user.
        InvalidFieldError
            The id is not a non-empty string.
        """
        if not self.is_trusted and (user_id is None or user_id != self.subject):
            raise ForbiddenError("the token does not belong to this user")
        if not isinstance(user_id, str) or not user_id:
            reason = "is missing" if user_id is None else "must be a non-empty string"
            raise InvalidFieldError("user_id", reason)
        return user_id

    def require_trusted(self) -> None:
        """Refuse a user's token.

        Raises
        ------
        ForbiddenError
            The caller's token has no admin scope.
        """
        if not self.is_trusted:
            raise ForbiddenError("only a backend may do this, or a token with the admin scope")

    def own_user(self) -> str:
        """Return the id of the user to whom the caller's token belongs.

        Raises
        ------
        ForbiddenError
            The token's `sub` claim is missing, or is not a non-empty string.
        """
        if not isinstance(self.subject, str) or not self.subject:
            raise ForbiddenError("the token has no valid sub claim")
        return self.subject

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
