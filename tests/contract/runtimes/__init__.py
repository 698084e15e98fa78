"""One suite for every runtime of the agent."""
