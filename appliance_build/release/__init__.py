"""Owns version and epoch: what makes two builds the same; it must not read clocks or git."""
