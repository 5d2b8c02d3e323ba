"""The notebooks' networks in Keras, the baseline of `benchmarks.against_keras`, as a process that trains on request.

It needs `tensorflow` and nothing of this project, so that it can run in another environment. It reads a network's
settings as JSON from its first argument, then numbers of training steps from standard input, one per line; after each
it runs the steps and prints their number of images.
"""

import json
import os
import sys
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def build(settings: dict[str, Any]) -> Any:
    """Build and compile the network: convolution + ReLU and pooling per stage, dense layers, two heads."""
    import keras
    from keras import layers

    if settings["bf16"]:
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    model, age = settings["model"], settings["age"]
    size, channels = settings["image_size"], settings["channels"]
    initializer = "he_uniform" if model["weight_init"] == "kaiming_uniform" else "glorot_uniform"

    def dense(hidden: Any, units: list[int]) -> Any:
        for width in units:
            hidden = layers.Dense(width, activation="relu", kernel_initializer=initializer)(hidden)
            hidden = layers.Dropout(model["dropout"])(hidden)
        return hidden

    hidden = images = layers.Input((size, size, channels))
    trunk = model["trunk"]
    for width in trunk["channels"]:
        hidden = layers.Conv2D(
            width, trunk["kernel_size"], padding=trunk["padding"], activation="relu", kernel_initializer=initializer
        )(hidden)
        hidden = layers.MaxPooling2D()(hidden)
    shared = dense(layers.Dropout(model["feature_dropout"])(layers.Flatten()(hidden)), model["shared_units"])
    heads = [dense(shared, model["head_units"]) for _ in range(2)]
    gender = layers.Dense(1, activation="sigmoid", dtype="float32")(heads[0])
    years = layers.Dense(1, activation=None if age["output"] == "linear" else "relu", dtype="float32")(heads[1])
    network = keras.Model(images, [gender, years])
    network.compile(keras.optimizers.Adam(settings["lr"]), loss=["binary_crossentropy", age["loss"]])
    return network


def main() -> None:
    """Train as many steps as each line of standard input requests."""
    settings = json.loads(sys.argv[1])
    output, sys.stdout = sys.stdout, sys.stderr  # Keras prints to standard output, too
    network = build(settings)
    import keras
    import tensorflow as tf

    batch, size = settings["batch_size"], settings["image_size"]
    random = np.random.default_rng(0)
    # Random images, in memory and already scaled: their content doesn't change the speed.
    images = random.random((4 * batch, size, size, settings["channels"]), dtype=np.float32)
    truths = (random.integers(0, 2, (4 * batch, 1)), random.random((4 * batch, 1), dtype=np.float32) * 80)
    batches = tf.data.Dataset.from_tensor_slices((images, truths)).batch(batch).repeat().prefetch(2)

    class TakeTurns(keras.callbacks.Callback):
        left = asked = 0

        def on_train_batch_begin(self, batch_idx: int, logs: Any = None) -> None:
            while self.left == 0:
                if self.asked:
                    print(self.asked * batch, file=output, flush=True)
                line = sys.stdin.readline()
                if not line:
                    os._exit(0)
                self.left = self.asked = int(line)
            self.left -= 1

    network.fit(batches, epochs=1, steps_per_epoch=1_000_000, verbose=0, callbacks=[TakeTurns()])


if __name__ == "__main__":
    main()
