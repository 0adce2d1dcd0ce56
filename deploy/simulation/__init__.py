"""A line of our own: procedural parts, endless and seeded, with the truth about every pixel.

>>> from deploy.simulation import LineSettings, SimulatedLine
>>> part = SimulatedLine(LineSettings(seed=0)).defective_part(0, "missing_spot")
>>> part.defect, part.image.shape, bool(part.mask.any())
('missing_spot', (128, 128), True)
"""

from deploy.simulation.line import Part, SimulatedLine
from deploy.simulation.settings import DEFECT_KINDS, LineSettings
from deploy.simulation.writer import contact_sheet, write_mvtec

__all__ = ["DEFECT_KINDS", "LineSettings", "Part", "SimulatedLine", "contact_sheet", "write_mvtec"]
