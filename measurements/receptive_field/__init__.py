"""Over which distance the centre of a network's map hangs on the image: its effective receptive field."""
