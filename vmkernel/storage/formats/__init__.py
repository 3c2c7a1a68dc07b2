"""Formats, compressions and archives of images; it reads bytes and opens no file.

`registry.py` lists the formats. One format is one module with one class of `base.Format`: its
magic, its size, what makes it unsafe, its name for qemu-img, its words. To add one, write the
module, add its line to the registry, and its name to `SourceFormat` in vmkernel/model/images.py if
images can be made of it. Nothing else knows a format by name.
"""
