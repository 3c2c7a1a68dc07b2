"""Backups of VMs in a folder of the client: it owns the folder's format, and reaches the host only
through the SDK."""
