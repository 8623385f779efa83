"""Energy: what the device draws while a row runs, from NVML, a Jetson's sensors or RAPL."""

from seg_bench.power.meter import PowerMeter, measure_energy
from seg_bench.power.meters import Meters

__all__ = ["Meters", "PowerMeter", "measure_energy"]
