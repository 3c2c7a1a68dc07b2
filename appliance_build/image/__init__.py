"""Owns what the image is picked from: donor tree, our own files, roots; it must not pick.

``mkosi/``   how mkosi makes the donor tree of the locked packages
``rootfs/``  our own files, laid over the donor: units, presets, network
``roots/``   the entry points the closure starts from
"""
