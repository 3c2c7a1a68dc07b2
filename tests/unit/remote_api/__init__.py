"""Tests of the API without a network: its application, on nothing but the fake vmkernel."""
