"""Owns the tests of how the code reads and what it may import; it must not run the product."""
