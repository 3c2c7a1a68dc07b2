"""Owns what runs before and below the hypervisor: loaders, kernel start, drivers, guest firmware.

It imports nobody, and must not know how an image is put together.
"""
