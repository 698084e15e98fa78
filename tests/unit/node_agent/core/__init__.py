"""The pure part of the agent."""
