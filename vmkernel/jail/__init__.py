"""What a VM's process may do, as data: the unit's settings, and rendering them; it starts nothing.

The settings that are the same for every VM are in the unit template `mica-vm@.service`; those of
one VM are rendered here as its drop-in.
"""

from vmkernel.jail.drop_in import VmJail, render_drop_in
from vmkernel.jail.handover import Program, encode_handover

__all__ = ["Program", "VmJail", "encode_handover", "render_drop_in"]
