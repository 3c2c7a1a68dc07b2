"""Images: how they come, what they are, how they go out; it must not touch a volume's data."""
