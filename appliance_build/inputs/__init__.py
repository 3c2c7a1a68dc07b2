"""Owns what is taken from outside and its hashes; it must not decide what goes into the image.

``debian.toml``            the wanted Debian packages by set (tools, donor, guests)
``debian.lock.json``       the packages that resolved to: version, SHA-256, size
``build-wheels.lock``      the Python environment that builds and tests
``appliance-wheels.lock``  the wheels that are packed into the image

Standard library only: the bootstrap runs it before there is an environment.
"""
