"""The contract with those outside, line by line, against the running programs."""
