"""The driver, the published view and the secrets of an installation."""
