"""Owns what runs before and below the hypervisor; it must not know how an image is put together.

Loaders, kernel start, drivers, guest firmware. It imports nothing of Mica.
"""
