"""Ablations of an experiment.

They are variants, trained with several seeds on the same data, and what their differences prove.
"""
