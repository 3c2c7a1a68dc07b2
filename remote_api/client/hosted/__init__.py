"""What `mica serve` needs of its machine: a listening socket, and processes kept running."""
