"""The forecaster: what it learns from its own forecasts, and how it works on copies."""
