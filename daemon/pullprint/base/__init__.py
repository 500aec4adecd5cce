"""What every room stands on: the standard library and nothing else."""
