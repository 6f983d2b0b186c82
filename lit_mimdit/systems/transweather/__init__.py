"""TransWeather: network, objective, the system, and the reading of official checkpoints."""

from lit_mimdit.systems.transweather.system import TransWeather

__all__ = ["TransWeather"]
