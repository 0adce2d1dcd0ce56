"""PAEDID itself: torch and numpy, no I/O. Frames in, inspections out (``inspector``)."""
