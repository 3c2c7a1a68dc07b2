"""Tests of admission, with figures that are given; nothing is measured."""
