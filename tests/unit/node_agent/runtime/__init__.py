"""Parts of the process runtime, each by itself."""
