"""The weights that come with the package: `small.ckpt`, and in `small.json` what they scored and how they were made."""

LICENCE = "trained on UTKFace: for non-commercial research only"  # of all weights that learnt from its pictures
