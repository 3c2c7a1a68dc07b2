"""Tests of hosted mode: real processes, real HTTPS, real QEMU; they know the API alone."""
