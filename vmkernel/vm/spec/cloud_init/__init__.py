"""cloud-init's NoCloud: the configuration of a guest at its first start, as files and as a CD-ROM
image. It reads no disk and changes no VM.

documents.py   user-data, meta-data, network-config from the spec
user_data.py   what cloud-init makes of user data, and what it would drop
yaml_text.py   what is wrong with a YAML text for sure
ssh_key.py     what sshd makes of a public key
secrets.py     what of the spec is not shown, and stays where what was shown is sent back
seed.py        the CD-ROM's image
"""
