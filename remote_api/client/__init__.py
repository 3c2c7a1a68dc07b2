"""The SDK and the `mica` command: they use the API over HTTPS, and know nothing of its
implementation.

errors     what can go wrong, one tree
http       HTTPS to one host: trust, exchanges, answers as types
sdk        one module for each noun, joined in `Mica`
cli        the command; `cli.commands` has one module for each noun, found by itself
consoles   serial consoles and screens over WebSockets
backup     backups of VMs in a folder of this computer
hosted     what `mica serve` needs of its machine

A new noun is one module in `sdk`, named in the bases of `Mica`, and one in `cli.commands`.
"""
