"""Where a tool computes: the device that is asked for, or the best that is there."""

import torch
from mmengine.device import get_device

from polynl_mm.user_errors import UserError, first_line


def chosen_device(given: str | None) -> str:
    """Return the device to compute on.

    Args:
        given (str | None): What ``--device`` says, such as ``'cuda:1'``; None for the
            best that is there.

    Returns:
        str: Its name.

    Raises:
        UserError: If there is no such device on this machine.
    """
    if given is None:
        return get_device()
    try:
        torch.empty(1, device=given)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(
            f"--device {given} cannot be used on this machine ({first_line(error)}); "
            f"leave --device out to take {get_device()}."
        ) from error
    return given
