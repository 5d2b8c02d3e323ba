"""The weights that come with the package, `face.ckpt` and `small.ckpt`; what they scored lies beside them as JSON."""

LICENCE = "trained on UTKFace: for non-commercial research only"  # of all weights that learnt from its pictures
