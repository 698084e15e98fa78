"""Benches: each measures its own floor beside itself, in turns, in the same run."""
