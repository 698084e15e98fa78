"""The loop that decides, leadership, what is published to readers, settings."""
