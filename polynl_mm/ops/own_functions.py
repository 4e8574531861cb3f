"""Functions with gradients of their own: how they are applied and differentiated again.

Autograd, compilers, tracers and the transforms of ``torch.func`` each see such a
function in another way; what they need is here, once.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import TransformType
from torch.autograd import forward_ad


def apply_function(function: type[torch.autograd.Function], *inputs: Any) -> Any:
    """Apply a function with gradients of its own, or just do what it does.

    A traced graph holds no Python, and forward-mode differentiation goes with what is
    computed: both take the derivatives of the operations. Where no gradient is wanted,
    none is prepared.

    Args:
        function (type[torch.autograd.Function]): The function.
        *inputs: What its ``forward`` takes.

    Returns:
        Any: What its ``forward`` returns.
    """
    if torch.jit.is_tracing() or is_forward_mode(*inputs):
        return function.forward(*inputs)
    seen = torch.compiler.is_compiling() or is_transformed()
    applies = seen or wants_gradients(*inputs)
    return function.apply(*inputs) if applies else function.forward(*inputs)


def wants_gradients(*inputs: Any) -> bool:
    """Return whether autograd records what is made of the inputs.

    Args:
        *inputs: Tensors and others.

    Returns:
        bool: Whether gradients are on and a tensor among them requires one. Within a
        transform of ``torch.func`` tensors do not say that.
    """
    return torch.is_grad_enabled() and any(
        isinstance(one, Tensor) and one.requires_grad for one in inputs
    )


def is_transformed(*inputs: Any) -> bool:
    """Return whether a transform of ``torch.func`` is at work, as vmap or grad.

    Args:
        *inputs: Tensors and others, of which one may be several by the older vmap of
            ``torch.autograd.grad(is_grads_batched=True)``, too.

    Returns:
        bool: Whether one is; False where a compiler looks, which does not know.
    """
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or any(
        isinstance(one, Tensor) and torch._C._functorch.is_legacy_batchedtensor(one)
        for one in inputs
    )


def room_for(made: Tensor, *tensors: Tensor) -> Tensor:
    """Return a tensor that others, or what is made of them, are to be written into.

    Args:
        made (Tensor): A new tensor.
        *tensors (Tensor): What goes into it.

    Returns:
        Tensor: The same. Under vmap as many as of any of the tensors: it does not write
        many into one.
    """
    if is_transformed(made, *tensors):
        zeros = (t.new_zeros((), dtype=made.dtype) for t in tensors)
        made = sum(zeros, made)
    return made


def is_watched(*inputs: Any) -> bool:
    """Return whether others than autograd's backward mode look at the operations.

    Args:
        *inputs: Tensors and others.

    Returns:
        bool: Whether a compiler, a transform of ``torch.func``, or forward-mode
        differentiation of one of the inputs is at work.
    """
    seen = torch.compiler.is_compiling() or is_transformed()
    return seen or is_forward_mode(*inputs)


def is_forward_mode(*inputs: Any) -> bool:
    """Return whether derivatives of the inputs go forward, with what is computed.

    Args:
        *inputs: Tensors and others.

    Returns:
        bool: Whether one has a tangent or ``torch.func.jvp`` is at work; False where a
        compiler looks, which does not know.
    """
    if torch.compiler.is_compiling():
        return False
    transforms = torch._C._functorch.get_interpreter_stack() or ()
    if any(one.key() == TransformType.Jvp for one in transforms):
        return True
    if forward_ad._current_level < 0:
        return False
    tensors = (one for one in inputs if isinstance(one, Tensor))
    return any(_has_tangent(one) for one in tensors)


def _has_tangent(tensor: Tensor) -> bool:
    # What a transform of torch.func wraps shows its tangent outside of it alone.
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    with torch._C._DisableFuncTorch():
        return forward_ad.unpack_dual(tensor).tangent is not None


def with_known_signature(
    function: type[torch.autograd.Function],
) -> type[torch.autograd.Function]:
    """Keep the signature of a function's ``forward``, which torch reads at each call.

    That reading takes longer than starting the function's work on a GPU.

    Args:
        function (type[torch.autograd.Function]): One with ``setup_context``.

    Returns:
        type[torch.autograd.Function]: The same.
    """
    function.forward.__signature__ = inspect.signature(function.forward)
    return function


def writable(result: Tensor) -> Tensor:
    """Let what a function returns be written in place, though made as a view.

    Autograd refuses to write into a view that was made within a function: a transposed
    product, as where channels lie last.

    Args:
        result (Tensor): What ``forward`` has made, no view of an input.

    Returns:
        Tensor: The same numbers in the same memory.
    """
    followed = torch.jit.is_tracing() or torch.compiler.is_compiling()
    if followed or is_forward_mode(result):
        return result  # their gradients go through it
    return result.detach()


def differentiable_gradients(
    function: Callable[..., Tensor], inputs: Sequence[Tensor | None], grad: Tensor
) -> tuple[Tensor | None, ...]:
    """Return the gradients of a function, to be differentiated again.

    For the backward pass of a function with gradients of its own. One tensor may be two
    inputs or be made from another, of which each wants its own part. Within
    ``torch.func`` inputs do not say that they require a gradient; outside of it, its
    own ``vjp`` would not work under hooks on saved tensors, as checkpointing has.

    Args:
        function (Callable): Of the inputs, by operations that autograd knows.
        inputs (Sequence[Tensor | None]): What it takes.
        grad (Tensor): The gradient of what it returns.

    Returns:
        tuple[Tensor | None, ...]: One for each input, None where none is wanted.
    """
    within = is_transformed()
    wanted = [t is not None and (within or t.requires_grad) for t in inputs]

    def of_wanted(*tensors: Tensor) -> Tensor:
        given = iter(tensors)
        pairs = zip(inputs, wanted, strict=True)
        return function(*(next(given) if want else t for t, want in pairs))

    tensors = [t for t, want in zip(inputs, wanted, strict=True) if want]
    if within:
        found = torch.func.vjp(of_wanted, *tensors)[1](grad)
    else:
        aliases = [t.view_as(t) for t in tensors]
        y = of_wanted(*aliases)
        found = torch.autograd.grad(y, aliases, grad, create_graph=True)
    parts = iter(found)
    return tuple(next(parts) if want else None for want in wanted)
