"""Bilevel machinery: flat parameters, one inner step, its hypergradient, the value-function barrier."""

from ebomlc.bilevel.barrier import barrier_coefficient, gap_pullback, mixed_cross_entropy
from ebomlc.bilevel.batch_norm import fused_tangents
from ebomlc.bilevel.flat import FlatParameters
from ebomlc.bilevel.hypergradient import directional_derivative, forward_hypergradient, reverse_hypergradient
from ebomlc.bilevel.inner import SGD, AdamW, InnerState, Optimizer, initial_state, inner_step, step_sensitivity
from ebomlc.bilevel.lookahead import RandomReplay, frozen_statistics

__all__ = [
    "SGD",
    "AdamW",
    "FlatParameters",
    "InnerState",
    "Optimizer",
    "RandomReplay",
    "barrier_coefficient",
    "directional_derivative",
    "forward_hypergradient",
    "frozen_statistics",
    "fused_tangents",
    "gap_pullback",
    "initial_state",
    "inner_step",
    "mixed_cross_entropy",
    "reverse_hypergradient",
    "step_sensitivity",
]
