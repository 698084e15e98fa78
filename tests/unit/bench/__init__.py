"""What measures the scheduler, by itself."""
