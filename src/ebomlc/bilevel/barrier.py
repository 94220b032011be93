"""Lower loss, the value-function gap it leaves after an inner step, and the weight of that gap's gradient."""

from torch import Tensor
from torch.nn import functional as F

from ebomlc.bilevel.flat import FlatParameters


def mixed_cross_entropy(
    noisy_logits: Tensor, targets: Tensor, trusted_logits: Tensor, trusted_labels: Tensor
) -> Tensor:
    """Lower loss L(w; q): noisy rows against the corrector's targets, trusted rows against their right labels.

    Parameters
    ----------
    noisy_logits, targets : Tensor, shape [n, K]
        f_w(x') and q; `targets` are used as passed, so detach them where L is differentiated by w alone.
    trusted_logits : Tensor, shape [n_c, K]
        f_w(x) of the training half of the trusted batch; n_c may be 0.
    trusted_labels : Tensor of int64, shape [n_c]
        Right labels.

    Returns
    -------
    Tensor, shape []
        Mean over the n + n_c rows (METHOD.md section 1). The gap is its value at w minus its value at w*.
    """
    noisy = -(targets * F.log_softmax(noisy_logits, dim=1)).sum()
    trusted = F.cross_entropy(trusted_logits, trusted_labels, reduction="sum")
    return (noisy + trusted) / (len(noisy_logits) + len(trusted_logits))


def gap_pullback(
    targets: Tensor, log_before: Tensor, log_after: Tensor, corrector: FlatParameters, n_rows: int
) -> Tensor:
    """Gradient of the gap Q = L(w; q) - L(w*; q) by the corrector, for targets that are the same at both points.

    The trusted rows cancel, w* counts as a constant: the derivative of - sum_i q_i . [log p_w - log p_w*](x'_i) /
    (n + n_c) by a (Nguyen and Ta 2026; Ye et al. 2022).

    Parameters
    ----------
    targets : Tensor, shape [n, K]
        q with the corrector's graph; that graph is freed.
    log_before, log_after : Tensor, shape [n, K]
        log p at w and at w*; detached here. In float32: their difference is small.
    corrector : FlatParameters
        The corrector's A parameters.
    n_rows : int, > 0
        n + n_c, rows of the lower loss.

    Returns
    -------
    Tensor, shape [A]
        dQ/da of METHOD.md section 3, step 2.
    """
    change = (log_before - log_after).detach()
    return corrector.gradient(-(targets * change).sum() / n_rows)


def barrier_coefficient(
    gap: Tensor, upper: Tensor, main: slice, *, xi: float, delta: float, eps: float = 1e-8
) -> Tensor:
    """Weight of the gap gradient that keeps the outer step from undoing the inner one.

    ``main=slice(None), xi=1`` is the naive form of `mlc-barrier`: max(0, delta - <F, Q> / ||Q||^2), for gaps well
    above `eps`. Below it, beta fades to zero with the gap.

    Parameters
    ----------
    gap, upper : Tensor, shape [P + A]
        Gradients of the gap Q and of the upper loss F by the main model's P and the corrector's A parameters.
    main : slice
        The main model's block; only it enters the alignment. The norm is over both blocks.
    xi : float, >= 0
        Scale of the barrier.
    delta : float, >= 0
        Share of the gap's squared norm by which a step must at least reduce the gap.
    eps : float, > 0
        Keeps a vanished gap from dividing by zero.

    Returns
    -------
    Tensor, shape [], >= 0
        beta of METHOD.md section 3, step 4 (Nguyen and Ta 2026; Ye et al. 2022 for the unaligned form).
    """
    squared_norm = gap @ gap
    alignment = gap[main] @ upper[main]
    return xi * (delta * squared_norm - alignment).clamp_min(0) / (squared_norm + eps)
