"""From requests to services, one module an area; no decision is taken here."""
