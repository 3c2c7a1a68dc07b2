"""HTTP for this API: routing, checks, responses and problems; it knows no resource."""
