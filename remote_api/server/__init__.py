"""The API's process: its listener, TLS and limits; it does not know what the routes do."""
