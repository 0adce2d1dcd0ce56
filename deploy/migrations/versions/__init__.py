"""One file per revision; this one makes them part of the installed package."""
