"""An issuer of JWTs on this machine."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from local.cloud import HOST, encode

AUDIENCE = "stripe-customers"


class Issuer:
    """Signs tokens, and publishes its key by OpenID Connect's discovery."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def documents(self) -> dict[str, Any]:
        """Discovery document and keys by their paths."""
        key = RSAAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        return {
            "/.well-known/openid-configuration": {
                "issuer": self.url,
                "jwks_uri": f"{self.url}/keys",
            },
            "/keys": {"keys": [{**key, "kid": "key-1", "use": "sig", "alg": "RS256"}]},
        }

    def claims(self, subject: object, **changes: Any) -> dict[str, Any]:
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": subject,
            "iat": now - 60,
            "exp": now + 3600,
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, subject: object, key: Any = None, **changes: Any) -> str:
        """A token that is valid for an hour, but for the changes; None removes a claim."""
        claims = json.dumps(self.claims(subject, **changes)).encode()
        # PyJWT's own `encode` refuses a subject that is not a string.
        return jwt.PyJWS().encode(claims, key or self.key, "RS256", {"kid": "key-1"})


@contextmanager
def served(documents: dict[str, Any]) -> Iterator[str]:
    """Serve JSON documents by their paths."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path in documents
            self.send_response(200 if known else 404)
            self.end_headers()
            self.wfile.write(encode(documents.get(self.path)))

        def log_message(self, *_: Any) -> None: ...

    with http.server.ThreadingHTTPServer((HOST, 0), Handler) as server:
        thread = threading.Thread(target=partial(server.serve_forever, 0.05))
        thread.start()
        yield f"http://{HOST}:{server.server_port}"
        server.shutdown()
        thread.join()
