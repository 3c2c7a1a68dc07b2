"""Owns SCons's view of the build (targets and what they depend on); it must not do the work itself.

``image``    tools, donor, wheels -> staging tree -> ``mica.efi`` -> ``mica.img``
``machine``  ``run``: the stick powered on in QEMU
``checks``   ``test*`` and ``bench``
``service``  ``flash``, ``why``, ``lock``
"""
