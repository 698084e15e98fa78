"""Evaluations: the program that runs inside the job, its benchmarks and the models that it can load."""
