"""The nouns of Mica as frozen, strictly validated records; it imports nothing else of Mica.

Each is declared once: what is stored, what goes over the control socket, and what the API takes and
sends are the same types. What a field means is written below it, and is its
description in the OpenAPI document. What many parts use is offered here; an area's own nouns may
be imported from its module.
"""

from vmkernel.model.access import *
from vmkernel.model.audit import *
from vmkernel.model.backups import *
from vmkernel.model.base import *
from vmkernel.model.clones import *
from vmkernel.model.cloud_init import *
from vmkernel.model.console import *
from vmkernel.model.datastores import *
from vmkernel.model.disks import *
from vmkernel.model.event_types import *
from vmkernel.model.guest_agent import *
from vmkernel.model.host import *
from vmkernel.model.images import *
from vmkernel.model.listing import *
from vmkernel.model.machine_state import *
from vmkernel.model.operations import *
from vmkernel.model.problems import *
from vmkernel.model.scope import *
from vmkernel.model.snapshots import *
from vmkernel.model.statistics import *
from vmkernel.model.vm import *
from vmkernel.model.vm_differences import *
from vmkernel.model.vm_hardware import *
from vmkernel.model.vm_life import *
from vmkernel.model.volumes import *
from vmkernel.model.webhooks import *
