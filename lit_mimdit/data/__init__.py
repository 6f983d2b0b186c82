"""Pairs of degraded and clean images:

where they come from, how they are read and how they reach the network.
"""
