"""Holds the monitor to its promise: ``python -m deploy.chaos storm`` kills everything, again and again, and counts.

`points` names the moments at which a crash could lose or double something, `doomed` runs a program that kills itself
at one of them, `plan` draws who ends when, `world` has the servers and programs, `feed` is the camera, `reviewer` the
person, `accounts` says what became of every frame, `storm` brings them together. `load` sends more than can be
inspected.
"""
