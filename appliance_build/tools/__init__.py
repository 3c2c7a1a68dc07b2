"""Owns the tools tree (Debian 13's build tools beside the host's own) and how its programs are run.

It must not know what is built with them. Standard library only.
"""
