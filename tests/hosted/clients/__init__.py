"""Owns what users of generated clients write: one whole flow in each language. It must not import
Mica: a flow knows nothing but the client that was made for it.

Each takes its host from the environment: MICA_ADDRESS, MICA_CERTIFICATE (a PEM file), MICA_TOKEN,
MICA_NAME (what its objects are called), MICA_FOLDER (for a datastore) and MICA_IMAGE (a file to
upload). Each prints `done`.
"""
