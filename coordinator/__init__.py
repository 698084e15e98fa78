"""The coordinator: decides, keeps, answers."""
