"""HTTPS to one host: trust by fingerprint, exchanges, answers as wire types.

It knows no single call of the API; those are in `sdk`.
"""
