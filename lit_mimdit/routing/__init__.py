"""The router microscope:

from the routers' decisions about images to tables, statistics and pictures.
"""
