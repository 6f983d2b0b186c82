"""Wide degradations: continuous ranges from nothing to heavy, several published models a kind.

Every model is a pure function ``(image, strength, generator) -> image``. ``image`` is float32
(H, W, 3), sRGB in [0, 1]. ``strength`` lies in [0, 1]: 0 leaves the image as it is, 1 is heaviest.
``generator`` is a numpy Generator. The input is never changed.
"""
