"""``plane bench compare``: two runs or more held against each other, by the rows they left and nothing else."""
