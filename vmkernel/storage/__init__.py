"""Datastores and what lies in them: images, volumes, VM folders; it must not touch a VM's state."""
