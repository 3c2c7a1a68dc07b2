"""Owns what tests are made with: machine, guest, client; it must not hold a test."""
