"""Owns the way from a bare Debian host to a running SCons; it must not build the image itself.

``host``         what the host must have; missing Debian packages are installed
``environment``  the Python environment, of hash-pinned wheels, in the cache
``start``        both in turn, then SCons in that environment

Standard library only, and no newer Python than the oldest supported host's.
"""
