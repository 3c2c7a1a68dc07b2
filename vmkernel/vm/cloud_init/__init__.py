"""cloud-init's NoCloud: what a guest is told at its first start, as files and as the image of a
CD-ROM. It reads no disk and changes no VM.

documents.py   user-data, meta-data, network-config from the spec
secrets.py     what of the spec is not shown, and stays where what was shown is sent back
seed.py        the CD-ROM's image
"""
