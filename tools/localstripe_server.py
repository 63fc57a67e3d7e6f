"""localstripe on loopback and in memory; run by the Python of localstripe's own environment.

Its own command listens on every interface and writes its state to a fixed file of the machine.
"""

import sys

from aiohttp import web
from localstripe.resources import PaymentMethod, store
from localstripe.server import app, json_response


def payment_methods_of_customer(request: web.Request) -> web.Response:
    """Answer today's path for a customer's payment methods; localstripe has the older one only."""
    listed = PaymentMethod._api_list_all(
        request.path, customer=request.match_info["id"], **request.query
    )
    return json_response(listed._export())


store.dump_to_disk = lambda: None
app.router.add_get("/v1/customers/{id}/payment_methods", payment_methods_of_customer)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]))
