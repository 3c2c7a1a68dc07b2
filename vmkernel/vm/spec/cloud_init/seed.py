"""The seed as an ISO 9660 image labelled CIDATA, with Rock Ridge names."""

from __future__ import annotations

import io
from collections.abc import Mapping

__all__ = ["make_seed"]


def make_seed(files: Mapping[str, bytes]) -> bytes:
    """The image of a CD-ROM with these files."""
    import pycdlib  # only hosts with such VMs pay for it

    image = pycdlib.PyCdlib()
    image.new(interchange_level=3, rock_ridge="1.09", vol_ident="CIDATA", sys_ident="LINUX")
    try:
        for number, (name, data) in enumerate(sorted(files.items())):
            image.add_fp(io.BytesIO(data), len(data), f"/FILE{number}.;1", rr_name=name)
        written = io.BytesIO()
        image.write_fp(written)
    finally:
        image.close()
    return written.getvalue()
