"""The systems that PAEDID is measured against, and PAEDID itself, behind one interface (``base``)."""
