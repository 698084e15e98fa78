"""The command line `scaimind`. Nothing heavy is imported before a verb needs it."""
