"""What the three programs share: settings and logging. Jobs and clients never import it."""
