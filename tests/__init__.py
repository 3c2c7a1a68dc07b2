"""Every test of Mica, and what they are made with; nothing outside of it imports it."""
