"""Backups of VMs in a folder of the client: made, listed, verified, pruned and restored.

Owns the folder's format and nothing of the host's; everything else goes through the SDK.
"""
