"""Owns the way from locked inputs to ``mica.efi`` and ``mica.img``; never runs in the appliance.

The stages, each a sub-package that reads files and writes files:

``bootstrap``  a bare Debian host -> Python environment, tools tree, ``scons``
``inputs``     what is taken from outside, pinned by hash, kept in an archive
``tools``      the tools tree and the one way to run a program of it
``image``      packages -> donor tree (mkosi), our own files, the roots
``closure``    donor tree + roots -> list of the files that are needed, with reasons
``assemble``   listed files -> root image -> initrd -> UKI -> stick image
``audit``      what must be true of the result
``release``    version and epoch: what makes two builds the same
``builders``   SCons's view of all that
"""
