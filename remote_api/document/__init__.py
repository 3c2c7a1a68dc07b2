"""Makes the OpenAPI document of the table of routes; it is loaded on no host."""
