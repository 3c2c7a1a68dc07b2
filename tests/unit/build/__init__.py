"""Tests of inputs, bootstrap, assembly and SCons builders; it starts no build and no machine."""
