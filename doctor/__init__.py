"""Checks whether this machine is ready to run the suite. Each check states what it finds and how to correct it.

Nothing lasting is changed. Doctor must work where packages are not installed, because that is one of the problems that
it reports: every module here imports torch, and rooms that need packages, only inside the checks that use them.
"""
