"""Other systems on the same images and metrics, to compare with."""
