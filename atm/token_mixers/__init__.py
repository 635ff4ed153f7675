"""Token mixers other than ATM, each as published, for ATMNet's blocks; ``atm.mixers.MIXERS`` names them.

Each is built from a width and ``MixerOptions`` and called as ``forward(x, offsets)``; none uses the offsets. The
network initialises their Linear and Conv2d layers as its own; where the mixer's paper does it in another way,
``init_weights`` of the mixer is called afterwards.
"""
