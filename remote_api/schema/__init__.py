"""What belongs to the wire alone: bodies, queries, pages, problems and tickets; it imports nothing
but the nouns of `vmkernel.model`, which are sent and answered as they are.

What many parts use is offered here; a noun's own bodies and queries may be imported from its
module.
"""

from remote_api.schema.access import *
from remote_api.schema.backups import *
from remote_api.schema.base import *
from remote_api.schema.capabilities import *
from remote_api.schema.clones import *
from remote_api.schema.console import *
from remote_api.schema.datastores import *
from remote_api.schema.disks import *
from remote_api.schema.host import *
from remote_api.schema.images import *
from remote_api.schema.lists import *
from remote_api.schema.operations import *
from remote_api.schema.problem_kinds import *
from remote_api.schema.problems import *
from remote_api.schema.snapshots import *
from remote_api.schema.vm import *
from remote_api.schema.volumes import *
