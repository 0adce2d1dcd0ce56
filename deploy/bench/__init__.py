"""How a bank learns, measured in process on the simulated line: ``python -m deploy.bench``."""
