"""The trainer: from a folder of normal images to a calibrated model bundle."""
