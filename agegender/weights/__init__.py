"""The weights that come with the package: `small.ckpt`, and in `small.json` what they scored and how they were made."""
