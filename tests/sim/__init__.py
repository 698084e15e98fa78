"""A seeded world around the real core: crashes, lost messages, dying nodes, and those who check."""
