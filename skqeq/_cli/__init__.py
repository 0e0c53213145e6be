"""What the commands of `skqeq.cli` do."""
