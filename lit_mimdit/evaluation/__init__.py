"""Scores images and tables degradations, to tell what a restoration is worth."""
