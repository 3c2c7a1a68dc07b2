"""Owns the way from listed files to bootable images; it must not choose files.

``root_image``  staging tree -> compressed read-only root (erofs)
``initrd``      static init + early modules + root image -> uncompressed cpio
``microcode``   the vendors' microcode -> early cpio
``uki``         kernel + initrd + command line -> ``mica.efi``
``stick``       ``mica.efi`` + loaders + state partition -> ``mica.img``

Every step gives the same bits for the same inputs: fixed times, fixed order, fixed ids.
"""
