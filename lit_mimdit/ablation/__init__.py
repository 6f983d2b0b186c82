"""Ablations:

variants of one experiment, trained with several seeds on the same data, and what their differences
prove.
"""
