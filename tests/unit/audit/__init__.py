"""Tests that each audit rule fires on a crafted sample; no finished image is needed."""
