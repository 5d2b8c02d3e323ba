"""One cartoon face: who it shows, the pen, the parts of the face, the photograph."""
