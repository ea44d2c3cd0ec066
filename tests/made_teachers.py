"""Teachers that learned nothing: networks of random weights, which do anything that a teacher may do."""

from itertools import pairwise

import numpy as np

from agents.teacher import ACCEPT, FEATURES, MOVES, SUFFIX, TeacherNetwork

SCALES = {"paper": 500.0, "hidden": 600.0, "no_deal": 600.0}


def network(seed=0, scenario="paper", hidden=(12,)):
    """Weights that float32 holds exactly, so that a file gives them back; often it waits, or accepts."""
    rng = np.random.default_rng(seed)
    layers = []
    for inputs, outputs in pairwise([FEATURES, *hidden, MOVES]):
        weight, bias = (rng.normal(size=size).astype(np.float32).astype(float) for size in ((outputs, inputs), outputs))
        layers.append((weight, bias))
    layers[0][0][:, -5] *= 8.0  # it listens to what it is asked
    bias = layers[-1][1]
    bias[[ACCEPT, 1]] += 10.0, 8.0
    bias[:] = bias.astype(np.float32)
    return TeacherNetwork(tuple(layers), SCALES[scenario], scenario)


def saved(path, seed=0, scenario="paper"):
    """The file of such a network, its folder made if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    network(seed, scenario).save(path)
    return path


def folder(path, seed=0, scenarios=("paper", "hidden")):
    """A folder with a file for each preset."""
    for k, name in enumerate(scenarios):
        saved(path / f"{name}{SUFFIX}", seed + k, name)
    return path
