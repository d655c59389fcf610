"""The reference: joint training of both networks as one graph, in plain PyTorch, one process, own
AdamW and clipping.

In bf16 and fp16 the forward and backward run on low-precision copies of fp32 weights, one
micro-batch after the other as the ranks do it, and the gradients are summed in fp32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from electra_dist.batch import PADDING_DOCUMENT
from electra_dist.config import NETWORKS, Config
from electra_dist.model.backends import DTYPES
from electra_dist.model.inputs import to_device
from electra_dist.model.networks import build_networks
from tests.support.small import VOCABULARY, make_micro_batch

Tensors = dict[str, Tensor]


class PlainTrainer:
    """Trains on whole global steps; `weights` are the fp32 parameters by `network/name`."""

    def __init__(self, config: Config, seed: int) -> None:
        self.config = config
        self.networks = dict(
            zip(NETWORKS, build_networks(config, VOCABULARY, "cpu", seed), strict=True)
        )
        self.parameters = {
            f"{network}/{name}": parameter
            for network, module in self.networks.items()
            for name, parameter in module.named_parameters()
        }
        self.dtype = DTYPES[config.precision.mode]
        self.weights = {name: p.detach().clone() for name, p in self.parameters.items()}
        for module in self.networks.values():
            module.to(self.dtype)
        self.first = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        self.second = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        self.steps = 0
        self.losses: list[tuple[float, float]] = []

    def gradients(self, rows: list[int]) -> Tensors:
        """fp32 gradients of the joint loss over these rows; appends both mean losses."""
        config, scale = self.config, 2.0**8 if self.config.precision.mode == "fp16" else 1.0
        micro = config.train.micro_rows
        parts = [make_micro_batch(rows[i : i + micro]) for i in range(0, len(rows), micro)]
        masked = sum(float(batch.masked_weights.sum()) for batch, _ in parts)
        real = sum(float((batch.documents != PADDING_DOCUMENT).sum()) for batch, _ in parts)
        sums = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        losses = [0.0, 0.0]
        for batch, samples in parts:
            moved = to_device(batch, "cpu")
            generated = self.networks["generator"](moved, samples)
            judged = self.networks["discriminator"](
                generated.shared, moved, generated.corrupted, generated.replaced
            )
            generator_loss, discriminator_loss = generated.loss_sum / masked, judged.loss_sum / real
            weighted = config.train.generator_weight * generator_loss
            weighted = weighted + config.train.discriminator_weight * discriminator_loss
            (weighted * scale).backward()
            for name, parameter in self.parameters.items():
                sums[name] += parameter.grad.float() / scale
                parameter.grad = None
            losses = [
                losses[0] + float(generator_loss.detach()),
                losses[1] + float(discriminator_loss.detach()),
            ]
        self.losses.append((losses[0], losses[1]))
        return sums

    def norms(self, gradients: Tensors) -> dict[str, float]:
        """Gradient norm of each network."""
        squares = dict.fromkeys(NETWORKS, 0.0)
        for name, gradient in gradients.items():
            squares[name.split("/")[0]] += float(gradient.double().square().sum())
        return {network: square**0.5 for network, square in squares.items()}

    def clipped(self, gradients: Tensors) -> Tensors:
        """`gradients` limited to `optim.clip_norm`, by one norm or by each network's own."""
        limit, norms = self.config.optim.clip_norm, self.norms(gradients)
        joint = sum(norm**2 for norm in norms.values()) ** 0.5
        factors = {
            network: min(
                1.0, limit / ((joint if self.config.optim.clip_mode == "joint" else norm) + 1e-6)
            )
            for network, norm in norms.items()
        }
        return {
            name: gradient * factors[name.split("/")[0]] for name, gradient in gradients.items()
        }

    @torch.no_grad()
    def update(self, gradients: Tensors, lr_factor: float = 1.0) -> None:
        """AdamW (Loshchilov and Hutter 2019), matrices and tables decayed."""
        self.steps += 1
        for name, gradient in gradients.items():
            optim = self.config.optimizer(name.split("/")[0])
            lr, weight = optim.lr * lr_factor, self.weights[name]
            if weight.ndim > 1:
                weight.mul_(1 - lr * optim.weight_decay)
            self.first[name].mul_(optim.beta1).add_(gradient, alpha=1 - optim.beta1)
            self.second[name].mul_(optim.beta2).addcmul_(gradient, gradient, value=1 - optim.beta2)
            first = self.first[name] / (1 - optim.beta1**self.steps)
            second = self.second[name] / (1 - optim.beta2**self.steps)
            weight.sub_(lr * first / (second.sqrt() + optim.epsilon))
            self.parameters[name].copy_(weight)

    def train(self, rows: list[int], lr_factor: float = 1.0) -> None:
        """One whole step."""
        self.update(self.clipped(self.gradients(rows)), lr_factor)
