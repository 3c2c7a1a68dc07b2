"""Owns the way from power-on to PID 1; it must not know what the system does afterwards.

``init.c``             /init of the initrd: mounts the root image and starts systemd
``kernel_command_line``  the one place for the kernel's parameters, each with its reason
``loader.conf``        systemd-boot's settings (UEFI)
``syslinux.cfg``       the BIOS loader's settings
``mica.toml.example``  the commented example on the stick
"""
