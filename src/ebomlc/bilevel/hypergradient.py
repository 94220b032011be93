"""Exact gradient of the upper loss by the corrector through one inner step: reverse, and forward-mode."""

import warnings
from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from ebomlc.bilevel.flat import FlatParameters


def reverse_hypergradient(
    lower_loss: Callable[[Tensor, Tensor], Tensor],
    upper_loss: Callable[[Tensor], Tensor],
    weights: Tensor,
    corrector: Tensor,
    step: Callable[[Tensor], Tensor],
) -> Tensor:
    """Differentiate the look-ahead by reverse over reverse: the reference form, slow and plain.

    Parameters
    ----------
    lower_loss : callable (w of shape [P], a of shape [A]) -> Tensor, shape []
        The lower loss L(w; q(a)); it detaches the features that the corrector reads.
    upper_loss : callable (w of shape [P]) -> Tensor, shape []
        The upper loss F.
    weights : Tensor, shape [P]
        Main model's weights w, where the step starts.
    corrector : Tensor, shape [A]
        Corrector's parameters a.
    step : callable (gradient of shape [P]) -> Tensor, shape [P]
        Look-ahead weights w*, differentiable in the gradient; such as `inner_step` from w.

    Returns
    -------
    Tensor, shape [A]
        dF(w*(a))/da (Zheng et al. 2021), w itself held fixed; zero where F does not depend on a.
    """
    w = weights.detach().requires_grad_()
    a = corrector.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(lower_loss(w, a), w, create_graph=True)
        upper = upper_loss(step(gradient))
        (hypergradient,) = torch.autograd.grad(upper, a, allow_unused=True, materialize_grads=True)
    return hypergradient


def forward_hypergradient(
    log_probabilities: Callable[[dict[str, Tensor]], Tensor],
    weights: Mapping[str, Tensor],
    tangent: Mapping[str, Tensor],
    targets: Tensor,
    corrector: FlatParameters,
    n_rows: int,
) -> Tensor:
    """Differentiate the look-ahead by one Jacobian-vector product and a backward through the corrector alone.

    With v = dw*/dgradient . dF/dw(w*), constant, dF/da = d/da of - sum_i q_i(a) . JVP_v[log p_w(x'_i)] / (n + n_c):
    the trusted rows of the lower loss do not depend on a. Exact for SGD; for AdamW with `step_sensitivity` the
    preconditioner counts as a constant. Equals `reverse_hypergradient` (METHOD.md section 2).

    Parameters
    ----------
    log_probabilities : callable (named weights) -> Tensor, shape [n, K]
        log p of the noisy batch; same statistics rule and dropout masks as in the lower loss, see `frozen_statistics`
        and `RandomReplay`.
    weights : mapping of str to Tensor
        Main model's weights **at w**, not at w*: the module must be restored before, or a saved copy passed.
    tangent : mapping of str to Tensor
        v by the same names: `step_sensitivity` times the gradient of the upper loss at w*.
    targets : Tensor, shape [n, K]
        q of the lower loss, with the corrector's graph; that graph is freed.
    corrector : FlatParameters
        The corrector's A parameters.
    n_rows : int, > 0
        n + n_c, rows of the lower loss.

    Returns
    -------
    Tensor, shape [A]
        dF(w*(a))/da (Zheng et al. 2021), w itself held fixed.
    """
    change = directional_derivative(log_probabilities, weights, tangent)
    return corrector.gradient(-(targets * change).sum() / n_rows)


def directional_derivative(
    function: Callable[[dict[str, Tensor]], Tensor], weights: Mapping[str, Tensor], tangent: Mapping[str, Tensor]
) -> Tensor:
    """Derivative of a function of the weights along a tangent, in forward mode: one pass, no graph.

    Parameters
    ----------
    function : callable (named weights) -> Tensor
        Such as log-probabilities or losses of a batch by ``torch.func.functional_call``, under `frozen_statistics`.
    weights, tangent : mapping of str to Tensor
        The point and the direction, under the same names and of the same shapes.

    Returns
    -------
    Tensor
        Of the shape that `function` returns, without gradient.
    """
    _load_forward_mode()
    # of the ways to compute attention, only the plain one has a rule for forward mode
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
        # as torch.func.jvp, whose wrapped tensors take a fifth longer with a small network
        value = function({name: _dual(weight, tangent[name]) for name, weight in weights.items()})
        primal, change = forward_ad.unpack_dual(value)  # pyright: ignore[reportUnknownMemberType]
        return torch.zeros_like(primal) if change is None else change


def _dual(value: Tensor, tangent: Tensor) -> Tensor:
    return forward_ad.make_dual(value, tangent)  # pyright: ignore[reportUnknownMemberType]


@cache
def _load_forward_mode() -> None:
    """Let torch set up forward mode, which it does at the first use, by way of a function it deprecates itself."""
    # Once, not around every call: catch_warnings makes Python forget which warnings it has already shown.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.script", category=DeprecationWarning)
        with forward_ad.dual_level():
            _dual(torch.zeros(()), torch.zeros(())).neg()
