"""Is this machine ready to run the suite? Each check says what it found and, where needed, what to do.

Nothing lasting is changed. It must work where the packages are not installed, which is what it is there to say: every
module here imports the suite's other rooms, and torch, only inside the checks that need them. It is a room of its own
because `experiments/` is the code that a run's fingerprint covers.
"""
