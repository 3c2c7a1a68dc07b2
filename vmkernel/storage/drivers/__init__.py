"""The kinds of datastores, one module each and a line in `registry`; a driver brings a root and
takes it away, and must not touch what lies in it."""
