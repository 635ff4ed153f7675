"""Where samples come from: real images through timm's readers, procedural scenes, and the order they are seen in."""
