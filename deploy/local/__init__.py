"""The embedded stack: real servers that come as wheels, for a first try and for the tests. Not for a plant."""
