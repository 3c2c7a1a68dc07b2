"""The SDK and the `mica` command: they speak the API over HTTPS, and know nothing of its inside."""
