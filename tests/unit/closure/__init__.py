"""Tests of the closure, on trees and ELF files made on the spot; no donor is needed."""
