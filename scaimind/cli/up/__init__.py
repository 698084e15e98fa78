"""`scaimind up`: the three real programs on this machine, kept up until it is told to stop."""
