"""What decord's errors about a file mean, and the ways out."""

import os

import cv2

from polynl_mm.file_names import utf8_name

# libavformat's AVERROR_DECODER_NOT_FOUND, which decord prints as it is, under a
# sentence that says that there is no video stream.
DECODER_NOT_FOUND = "(-1128613112 vs"
CODECS = {"AV01": "AV1", "VVC1": "VVC (H.266)", "VVI1": "VVC (H.266)"}
# Of frames so wide decord 0.6.0 takes rows for longer than they are: batches raise an
# error, and single frames come out skewed.
UNFIT_WIDTHS = (2, 4, 6, 8, 12, 16, 24, 48, 72)
UNFIT_WIDTH = (
    "has a width at which decord cannot read frames (tools/data/resize_videos.py gives "
    "it another)"
)


def explain_decord(error: Exception, path: str | os.PathLike) -> str | None:
    """Say what an error of decord means where decord itself does not say it.

    Args:
        error (Exception): What decord raised.
        path (str | os.PathLike): The file it was about.

    Returns:
        str | None: What is to be said of the file, such as ``"has no video stream"``;
        None for errors of other kinds.
    """
    said = str(error)
    if DECODER_NOT_FOUND in said:
        return (
            f"is {_codec(path)}, for which decord has no decoder "
            "(tools/data/resize_videos.py makes H.264 of it)"
        )
    if "cannot find video stream" in said:
        return "has no video stream"
    if "size must exactly match" in said:
        return UNFIT_WIDTH
    return None


def _codec(path: str | os.PathLike) -> str:
    capture = cv2.VideoCapture(utf8_name(path))
    code = int(capture.get(cv2.CAP_PROP_FOURCC)) if capture.isOpened() else 0
    capture.release()
    name = code.to_bytes(4, "little").decode("ascii", "ignore").strip("\0 ").upper()
    return CODECS.get(name, name) if name.isprintable() and name else "of a codec"
