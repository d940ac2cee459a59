"""The parts of ``benchmarks/int8.py``: what it quantizes, who does it, in which process, and what came of it."""
