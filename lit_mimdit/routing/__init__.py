"""The router microscope turns decisions about images into tables, statistics and pictures."""
