"""Tests of the API without a network: its application on the fake vmkernel."""
