"""HTTP as this API speaks it: routing, checks, answers and their problems; it knows no resource."""
