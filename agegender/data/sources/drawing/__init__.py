"""Cartoon faces: sampled traits, drawing primitives, the parts of the face, photographic effects."""
