"""Pairs of degraded and clean images come from folders or shards and reach the network."""
