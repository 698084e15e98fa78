"""Storage that fails, is lost, is restored: the real program on it."""
