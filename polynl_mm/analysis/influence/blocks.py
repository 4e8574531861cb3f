"""The terms of each kind of plugin: (terms of a group's positions, constant).

Every function takes a plugin and the query, and returns the terms, (C, N), and what is
constant, (C,). The terms' sum and the constant are the plugin's update of the query.
"""

import math

import torch
from torch import Tensor, nn

from polynl_mm.analysis.influence.linear_parts import (
    apply_weight,
    bias_of,
    layer_norm_terms,
    norm_as_affine,
    project,
    secant_of_sigmoid,
)
from polynl_mm.analysis.influence.non_local_rows import value_terms
from polynl_mm.analysis.influence.query import Query, inputs_of
from polynl_mm.analysis.influence.rows import (
    softmax_row,
    spread_over_regions,
    times_criss_cross,
)
from polynl_mm.analysis.influence.stacked_rows import unit_terms
from polynl_mm.ops.pyramid import pool_regions
from polynl_mm.plugins import Plugin

Parts = tuple[Tensor, Tensor]


def poly_nl(plugin: Plugin, query: Query) -> Parts:
    """``alpha norm(out((theta x_j * phi x_j) * g x_i)) / N``."""
    x, here = query.features, [query.index]
    terms = project(plugin.theta, x) * project(plugin.phi, x) / x.shape[1]  # (K, N)
    gated = x[:, here] if plugin.g is None else project(plugin.g, x[:, here])  # (K, 1)
    constant = bias_of(plugin.out, x)
    if plugin.moment_norm is not None:
        terms, shift = layer_norm_terms(plugin.moment_norm, terms, plugin.heads)
        constant = constant + apply_weight(plugin.out, shift[:, None] * gated)[:, 0]
    terms = apply_weight(plugin.out, terms * gated)
    terms, constant = _normed(query, plugin.norm, terms, constant)
    return plugin.alpha * terms, plugin.alpha * constant


def non_local(plugin: Plugin, query: Query) -> Parts:
    """``conv_out(affinity_ij g x_j)``; a maximum over a cell is of its position."""
    conv, *norm = plugin.conv_out.children()
    terms = apply_weight(conv, value_terms(plugin, query))
    constant = bias_of(conv, terms)
    return _normed(query, norm[0] if norm else None, terms, constant)


def pyramid(plugin: Plugin, query: Query) -> Parts:
    """``norm(out(sum_S affinity_iS g x_j / |S|))``, S the regions with j in them."""
    theta = plugin.theta(query.x)
    if plugin.theta_norm is not None:
        theta = plugin.theta_norm(theta).relu()
    theta = query.of_group(theta)
    if plugin.phi is None:
        keys = pool_regions(theta[None], query.shape, plugin.grids)
    else:
        regions = pool_regions(query.features[None], query.shape, plugin.grids)
        keys = [plugin.phi(region) for region in regions]
    sizes = [key.shape[2] for key in keys]
    if plugin.joint_softmax:
        keys = [torch.cat(keys, dim=2)]
    here, scale = theta[:, query.index], plugin.use_scale
    rows = [softmax_row(here, key[0], scale=scale) / len(keys) for key in keys]
    rows = torch.cat(rows).split(sizes)
    row = spread_over_regions(rows, query.shape, plugin.grids)
    return _projected(plugin, query, row * project(plugin.g, query.features))


def efficient_attention(plugin: Plugin, query: Query) -> Parts:
    """``norm(out(softmax_channels(theta)_i . softmax_positions(phi)_j g x_j))``."""
    x, heads = query.features, getattr(plugin, "heads", 1)
    theta = project(plugin.theta, x[:, [query.index]]).unflatten(0, (heads, -1))
    phi = project(plugin.phi, x).softmax(dim=1).unflatten(0, (heads, -1))
    rows = (theta.softmax(dim=1) * phi).sum(dim=1, keepdim=True)  # (heads, 1, N)
    values = project(plugin.g, x).unflatten(0, (heads, -1))
    return _projected(plugin, query, (rows * values).flatten(0, 1))


def compact_generalized(plugin: Plugin, query: Query) -> Parts:
    """``norm(out(sum_p c_p theta_i^p <phi_j^p, g_j>))``, the products by group."""
    x = query.features
    phi, g = (
        project(conv, x).unflatten(0, (plugin.groups, -1))
        for conv in (plugin.phi, plugin.g)
    )  # (groups, K / groups, N)
    theta = project(plugin.theta, x[:, [query.index]])
    theta = theta.unflatten(0, (plugin.groups, -1))
    series = {1: 1.0}
    if plugin.kernel == "rbf":
        beta, width = math.exp(-2 * plugin.gamma), 2 * plugin.gamma
        powers = range(plugin.order + 1)
        series = {p: beta * width**p / math.factorial(p) for p in powers}
    divisor = phi[0].numel() ** 0.5 if plugin.scale else 1.0
    inner = 0
    for power, factor in series.items():
        moments = (phi**power * g).sum(dim=1, keepdim=True) * (factor / divisor)
        inner = inner + theta**power * moments
    return _projected(plugin, query, inner.flatten(0, 1))


def pointwise(plugin: Plugin, query: Query) -> Parts:
    """``norm(out(x_i))``: a position contributes to itself alone."""
    return _projected(plugin, query, query.one_hot() * query.features)


def global_context(plugin: Plugin, query: Query) -> Parts:
    """What ``weight_j x_j`` adds through the transform, the same for every query."""
    x = query.features
    weights = x.new_full((x.shape[1],), 1 / x.shape[1])
    if plugin.pooling_type == "att":
        weights = project(plugin.phi, x)[0].softmax(dim=0)
    here = query.of_group(query.passed_on)[:, query.index]
    terms, constant = torch.zeros_like(x), torch.zeros_like(here)
    if "channel_mul" in plugin.fusion_types:
        gate = plugin.multiplier
        of_gate, shift = _bottleneck_terms(gate, weights, x)
        slope = secant_of_sigmoid(shift, shift + of_gate.sum(dim=1))
        terms = (gate.alpha * here * slope)[:, None] * of_gate
        constant = gate.alpha * here * (shift.sigmoid() - 1)
    if "channel_add" in plugin.fusion_types:
        added = _bottleneck_terms(plugin, weights, x)
        added = _normed(query, plugin.norm, *added)
        terms, constant = terms + added[0], constant + added[1]
    return terms, constant


def _bottleneck_terms(transform: nn.Module, weights: Tensor, x: Tensor) -> Parts:
    """Return the terms of ``out(ReLU(LN(g sum_j weights_j x_j)))``."""
    terms, shift = layer_norm_terms(
        transform.layer_norm, weights * project(transform.g, x)
    )
    passed = (terms.sum(dim=1) + shift > 0).to(x.dtype)  # by the ReLU
    out = transform.out
    constant = apply_weight(out, (passed * shift)[:, None])[:, 0] + bias_of(out, x)
    return apply_weight(out, passed[:, None] * terms), constant


def criss_cross(plugin: Plugin, query: Query) -> Parts:
    """The terms of all recurrences together, each with its own affinity.

    With the affinities A_r held, the block is ``prod_r (1 + gamma A_r g)``: a sum over
    powers of g, each with a row of products of affinities.
    """
    features = inputs_of(plugin, query.passed_on, [plugin.theta])[plugin.theta]
    rows = [query.one_hot()]  # by power of g
    for x in reversed(features):
        theta, phi = (query.of_group(p(x)) for p in (plugin.theta, plugin.phi))
        further = [
            plugin.gamma * times_criss_cross(row, theta, phi, query.shape)
            for row in rows
        ]
        empty = torch.zeros_like(rows[0])
        rows = [a + b for a, b in zip([*rows, empty], [empty, *further], strict=True)]
    powers = project(plugin.g, query.features)
    terms = torch.zeros_like(powers)
    for row in rows[1:]:
        terms += row * powers
        # A second g finds no bias again: that is in the features of no position.
        powers = apply_weight(plugin.g, powers)
    return terms, terms.new_zeros(len(terms))


def stacked_units(plugin: Plugin, query: Query) -> Parts:
    """The terms of all units, of what each position holds when a unit reads it."""
    read = {plugin.g[0]: [query.x]}
    if plugin.num_units > 1:
        read = inputs_of(plugin, query.passed_on, plugin.g)
    terms, constant = 0, 0
    for unit, (g, norm) in enumerate(zip(plugin.g, plugin.norm, strict=True)):
        features = read[g][0]
        added = unit_terms(plugin, query, unit, query.of_group(g(features)), features)
        added, shift = _normed(query, norm, added, added.new_zeros(len(added)))
        passed = torch.ones_like(shift)
        if plugin.relu:
            passed = (added.sum(dim=1) + shift > 0).to(shift.dtype)
        factor = plugin.alpha[unit] * passed
        terms = terms + factor[:, None] * added
        constant = constant + factor * shift
    return terms, constant


def _projected(plugin: Plugin, query: Query, terms: Tensor) -> Parts:
    """Return ``norm(out(terms))``."""
    constant = bias_of(plugin.out, terms)
    terms = apply_weight(plugin.out, terms)
    return _normed(query, plugin.norm, terms, constant)


def _normed(
    query: Query, norm: nn.Module | None, terms: Tensor, constant: Tensor
) -> Parts:
    if norm is None or isinstance(norm, nn.Identity):
        return terms, constant
    scale, shift = norm_as_affine(norm, lambda: query.input_of(norm))
    return scale[:, None] * terms, scale * constant + shift
