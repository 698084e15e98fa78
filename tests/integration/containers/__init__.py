"""Jobs that name an image: real programs, a real engine, real containers."""
