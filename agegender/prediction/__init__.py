"""From a checkpoint and pictures to answers."""
