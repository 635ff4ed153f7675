"""Over which distance the centre of a network's map depends on the image: its effective receptive field."""
