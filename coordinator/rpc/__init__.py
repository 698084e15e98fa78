"""The servicers and the border between messages and records."""
