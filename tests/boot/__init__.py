"""Owns the tests of the built image in an emulated PC; it must use the API alone to manage it."""
