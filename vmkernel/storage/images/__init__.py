"""Images: import, description, download; it must not touch a volume's data."""
