"""A small causal transformer over bytes: numpy alone, every gradient written by hand."""
