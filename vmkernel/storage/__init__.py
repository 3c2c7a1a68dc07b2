"""Datastores and their content: images, volumes, VM folders; it must not touch a VM's state."""
