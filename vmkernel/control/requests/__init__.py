"""Every request that the vmkernel takes: its fields, the role it needs, the type of its reply;
one module an area. It holds data alone and must not touch any service.

A request is a record whose class names its wire tag, its `ROLE` and the type of its reply.
Requests with `ROLE = None` need no token. `STREAM` says that the reply carries a file descriptor: a
connected stream socket whose meaning the request's docstring gives.
All modules of the package are loaded, and so the socket knows every request. What many parts use is
offered here; an area's own requests may be imported from its module.
"""

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any, Union

from vmkernel.control.requests.access import *
from vmkernel.control.requests.backups import *
from vmkernel.control.requests.base import *
from vmkernel.control.requests.base import Request
from vmkernel.control.requests.clones import *
from vmkernel.control.requests.console import *
from vmkernel.control.requests.datastores import *
from vmkernel.control.requests.host import *
from vmkernel.control.requests.images import *
from vmkernel.control.requests.operations import *
from vmkernel.control.requests.snapshots import *
from vmkernel.control.requests.statistics import *
from vmkernel.control.requests.storage import *
from vmkernel.control.requests.vm import *

for _module in pkgutil.iter_modules(__path__, f"{__name__}."):  # noqa: F405 - no star
    importlib.import_module(_module.name)


def _requests(base: type[Request[Any]]) -> list[type[Request[Any]]]:
    """All requests derived from a base, which are those with a tag (`area.action`)."""
    own = [base] if "." in str(base.__struct_config__.tag) else []
    return own + [each for derived in base.__subclasses__() for each in _requests(derived)]


REQUESTS = tuple(_requests(Request))

if TYPE_CHECKING:
    AnyRequest = Request[Any]
else:
    AnyRequest = Union[REQUESTS]  # noqa: UP007 - of a tuple
