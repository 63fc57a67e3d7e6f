"""A deployed stack, and changes of its parts that are taken back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from local.cloud import Cloud, function_name
from tests.local_cloud.workers import end_workers

API_KEY, SIGNING = "/".join(("stripe", "api-key")), "/".join(("stripe", "webhook-secret"))


@dataclass
class Site:
    """A deployed stack.

    Parameters
    ----------
    cloud : Cloud
        The deployed local cloud.
    """

    cloud: Cloud

    def aws(self, service: str) -> Any:
        """A client of the local AWS."""
        return self.cloud.client(service)

    def resource(self, logical_id: str) -> str:
        """The name of something in the stack."""
        return function_name(self.cloud.endpoint, logical_id)

    def end_workers(self, logical_id: str) -> None:
        """End the processes of a function, as Lambda does every now and then."""
        end_workers(self.cloud.folder, self.resource(logical_id))


@contextmanager
def secret(site: Site, *, name: str, value: str | None) -> Iterator[None]:
    """Store another value, or none, in place of a secret."""
    store = site.aws("secretsmanager")
    before = store.get_secret_value(SecretId=name)["SecretString"]
    if value is None:
        store.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
    else:
        store.put_secret_value(SecretId=name, SecretString=value)
    try:
        yield
    finally:
        if value is None:
            store.create_secret(Name=name, SecretString=before)
        else:
            store.put_secret_value(SecretId=name, SecretString=before)
