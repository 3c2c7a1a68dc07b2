"""The API's routes over ASGI: it translates requests for the vmkernel and decides nothing."""

from remote_api.routes.application import MAX_HEAD_BYTES, Application
from remote_api.routes.exchange import ApiState
from remote_api.routes.registry import Registry
from remote_api.routes.table import all_routes, make_application

__all__ = [
    "ApiState",
    "Application",
    "MAX_HEAD_BYTES",
    "Registry",
    "all_routes",
    "make_application",
]
