"""The kinds of datastores, one module each and a line in `registry`; a driver provides a root
folder and removes it, and must not touch its content.
"""
