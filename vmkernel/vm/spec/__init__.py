"""What a VM is wanted to be, as pure functions of specs; it must not touch disks, QEMU or Linux."""
