"""Owns the tools tree and how its programs are run; it must not know what is built with them.

The tree holds Debian 13's build tools beside the host's own. Standard library only.
"""
