"""From requests to services, one module per area; nothing is decided here."""
