"""What a site adds around the monitor: a simulated line to try it on, and recipes to run it."""
