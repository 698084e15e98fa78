"""What tests and benches share: a real cluster of the three programs, its clients, bounded waiting."""
