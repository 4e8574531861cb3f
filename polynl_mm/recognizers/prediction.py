"""Predicting on single videos, whatever their state, within bounded memory."""

from dataclasses import dataclass

import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.runner import CheckpointLoader
from mmengine.utils import import_modules_from_strings

from polynl_mm.recognizers.evaluation_pipelines import find_test_pipeline
from polynl_mm.recognizers.model_match import check_complete
from polynl_mm.recognizers.video_reading import decode, split_pipeline
from polynl_mm.stack.float32_products import let_products_follow_convolutions
from polynl_mm.stack.safe_checkpoints import check_exists
from polynl_mm.stack.testing_views import bound_testing_views
from polynl_mm.user_errors import UserError


@dataclass
class Prediction:
    """What a recognizer says about a video.

    Attributes:
        video (str): The file.
        classes (list[int]): The most probable classes, best first.
        labels (list[str]): Their names, or their numbers as text.
        probabilities (list[float]): From 0 to 1.
        note (str): What is to know about the file, such as damage; mostly empty.
    """

    video: str
    classes: list[int]
    labels: list[str]
    probabilities: list[float]
    note: str = ""

    def lines(self) -> list[str]:
        """Return one line of text per class."""
        return [
            f"{probability:7.2%}  {label}"
            for label, probability in zip(self.labels, self.probabilities, strict=True)
        ]


class Predictor:
    """A recognizer with the weights of a checkpoint, for single videos.

    Args:
        cfg (mmengine.Config): A config with ``model`` and a pipeline for testing.
        checkpoint (str): Its weights: a path or an address.
        device (str): Where to compute, such as ``"cpu"`` or ``"cuda:0"``.
        labels (list[str] | None): The names of the classes.
        config_name (str): What to call the config in errors.

        average (str | None): What becomes of the scores of several views, as the
            head's ``average_clips``; default ``"prob"``, their mean probabilities.
            ``"config"`` leaves the config's own, where it has one.
        bound_views (bool): Whether views go through the network a few at a time.

    Attributes:
        steps (tuple): The test pipeline: the reader, the steps between (a list), the
            decoder, and the steps after it (a list).

    Raises:
        UserError: If the checkpoint is not of this model, or the config cannot read
            videos.
    """

    def __init__(
        self,
        cfg,
        checkpoint: str,
        device: str,
        labels=None,
        config_name="",
        average: str | None = "prob",
        bound_views: bool = True,
    ):
        from mmaction.registry import MODELS
        from mmaction.utils import register_all_modules

        check_exists(checkpoint)
        if cfg.get("custom_imports"):
            import_modules_from_strings(**cfg.custom_imports)
        register_all_modules(init_default_scope=False)
        let_products_follow_convolutions()
        init_default_scope(cfg.get("default_scope") or "mmaction")
        self.steps = split_pipeline(find_test_pipeline(cfg), config_name)
        self.labels = labels
        model_cfg = cfg.model.copy()
        if cfg.get("data_preprocessor"):
            model_cfg.setdefault("data_preprocessor", cfg.data_preprocessor)
        model = MODELS.build(model_cfg)
        self._check_labels(model, labels)
        head = getattr(model, "cls_head", None)
        if hasattr(head, "average_clips") and (
            average != "config" or head.average_clips is None
        ):
            # Configs may average scores or not at all; probabilities are printed.
            head.average_clips = "prob" if average == "config" else average
        loaded = CheckpointLoader.load_checkpoint(checkpoint, "cpu", logger="silent")
        check_complete(model, loaded, config_name, checkpoint)
        weights = loaded.get("state_dict", loaded)
        model.load_state_dict(
            {key.removeprefix("module."): value for key, value in weights.items()},
            strict=False,
        )
        self.model = model.to(device).eval()
        if bound_views:
            bound_testing_views(self.model)

    def predict(self, video: str, top_k: int = 5) -> Prediction:
        """Predict the classes of a video.

        A damaged video is predicted from the frames that can be read.

        Args:
            video (str): The file.
            top_k (int): How many classes to return.

        Returns:
            Prediction: The most probable classes.

        Raises:
            UserError: If the file does not exist or no frame of it can be read.
        """
        *steps, rest = self.steps
        sample, note = decode(video, *steps)
        sample = Compose(rest)(sample)
        return self.named(self.scores(sample, video), video, top_k, note)

    def named(
        self, scores: torch.Tensor, video: str, top_k: int, note: str = ""
    ) -> Prediction:
        """Return the most probable classes of a video.

        Args:
            scores (torch.Tensor): One per class.
            video (str): The file.
            top_k (int): How many classes to return.
            note (str): What is to know about the file.

        Returns:
            Prediction: With names.
        """
        probabilities, classes = scores.topk(min(top_k, len(scores)))
        return Prediction(
            video=str(video),
            classes=classes.tolist(),
            labels=[self.label(index) for index in classes.tolist()],
            probabilities=probabilities.tolist(),
            note=note,
        )

    def scores(self, sample: dict, video: str) -> torch.Tensor:
        """Return the scores of one sample.

        Args:
            sample (dict): What the test pipeline makes.
            video (str): Its file, for the sentence.

        Returns:
            torch.Tensor: One score per class, in float32, on the CPU.

        Raises:
            UserError: If a score is no finite number.
        """
        with torch.inference_mode():
            result = self.model.test_step(pseudo_collate([sample]))[0]
        return finite_scores(result, video)

    def label(self, index: int) -> str:
        """Return the name of a class, or its number as text where names are not known.

        Args:
            index (int): The class, from 0.
        """
        return str(index) if self.labels is None else self.labels[index]

    @staticmethod
    def _check_labels(model, labels: list[str] | None) -> None:
        classes = getattr(getattr(model, "cls_head", None), "num_classes", None)
        if labels is not None and classes is not None and len(labels) != classes:
            raise UserError(
                f"The file of labels names {len(labels)} classes, but the model has "
                f"{classes}; one name on each line is needed."
            )


def finite_scores(result, video: str) -> torch.Tensor:
    """Return the scores of a result of MMAction2.

    Args:
        result (ActionDataSample): What a recognizer predicts of a sample.
        video (str): Its file, for the sentence.

    Returns:
        torch.Tensor: One score per class, in float32, on the CPU.

    Raises:
        UserError: If a score is no finite number.
    """
    # MMAction2 before 1.2 has pred_scores.
    found = result.pred_score if hasattr(result, "pred_score") else None
    scores = result.pred_scores.item if found is None else found
    scores = scores.float().cpu()
    if not scores.isfinite().all():
        raise UserError(
            f"{video}: the network gives scores that are no finite numbers, which "
            "name no class; its weights or this video's features overflow."
        )
    return scores
