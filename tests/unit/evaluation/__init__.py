"""Evaluations: the benchmarks, and the program, without a job."""
