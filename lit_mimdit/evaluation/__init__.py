"""What a restoration is worth: scores an image, tables a degradation."""
