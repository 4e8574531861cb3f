"""The study on real people: every block on Nagoya FIR, under its protocol."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from polynl_mm.analysis.accuracy.runs import ROOT
from polynl_mm.atomic_files import expect_outputs, write_json
from polynl_mm.text_files import read_text
from polynl_mm.user_errors import UserError, did_you_mean, user_errors

NETWORKS = {
    "frame-wise": "configs/nagoya_fir/slowonly_r6{}_1xb32-u8-8e_nagoya-fir.py",
    "temporal": "configs/nagoya_fir/r3d_r6{}_1xb64-u8-16e_nagoya-fir.py",
}
PAGE = ROOT / "docs/real_data.md"
NO_PLUGIN, CONTROL = "no plugin", "1x1x1 convolution (control)"
# Title: name in the file name of its config.
BLOCKS = {
    NO_PLUGIN: "",
    CONTROL: "-pointwise",
    "PolyNL3d": "-polynl",
    "PolyNL3d, positions": "-polynl-sine",
    "PolyNL3d, reduction 4": "-polynl-r4",
    "PolyNL3d, reduction 8": "-polynl-r8",
    "NonLocalBlock3d, embedded Gaussian": "-nl-embedded-gaussian",
    "NonLocalBlock3d, embedded Gaussian, positions": "-nl-embedded-gaussian-sine",
    "NonLocalBlock3d, dot product": "-nl-dot-product",
    "SpectralNL3d (SNL)": "-spectralnl",
    "SpectralNL3d, order 2 (gSNL)": "-gspectralnl",
    "NonLocalStage3d": "-nlstage",
    "PyramidNL3d": "-pyramidnl",
    "DoubleAttention3d": "-doubleattention",
    "EfficientAttention3d": "-efficientattention",
    "GlobalContext3d": "-globalcontext",
    "CompactGeneralizedNL3d": "-cgnl",
    "CrissCross3d": "-crisscross",
}
WITHOUT_AXES = (NO_PLUGIN, CONTROL)
# Of another block in the table; over time only.
VARIANTS = tuple(t for t in BLOCKS if t.endswith("positions") or "reduction" in t)
FOLDS = {
    "three": tuple(f"three{number}" for number in range(1, 4)),
    "nine": tuple(f"person{number}" for number in range(1, 10)),
}
# What goes through all nine folds: the published protocol.
NINE = {
    "frame-wise": (
        NO_PLUGIN,
        CONTROL,
        "PolyNL3d",
        "PolyNL3d, positions",
        "NonLocalBlock3d, embedded Gaussian",
    ),
    "temporal": (NO_PLUGIN, "PolyNL3d, positions"),
}


def plan(
    data: Path, folds: Sequence[str], seeds: Sequence[int], best: str | None = None
) -> Iterator["Training"]:  # noqa: F821
    """Say which trainings the study is made of.

    Args:
        data (Path): The prepared data.
        folds (Sequence[str]): Keys of ``FOLDS``: ``three`` is every block on the
            frame-wise network, over time, and with the first seed over space and time;
            ``nine`` is ``NINE``.
        seeds (Sequence[int]): Each is made once.
        best (str, optional): The title of one more block for the nine folds.

    Yields:
        Training: Those of one seed before those of the next.
    """
    from polynl_mm.experiments.many_trainings import Training

    for seed in seeds:
        for count in folds:
            for network, title, axes in _cells(count, best, seed == seeds[0]):
                for fold in FOLDS[count]:
                    options = _fold_options(data, fold)
                    if title not in WITHOUT_AXES:
                        options["model.backbone.plugins.0.cfg.axes"] = axes
                    block = BLOCKS[title].strip("-") or "no-plugin"
                    yield Training(
                        name=f"{network}_{block}_{axes}_{fold}_seed{seed}",
                        config=NETWORKS[network].format(BLOCKS[title]),
                        seed=seed,
                        options=options,
                        about={
                            "network": network,
                            "block": title,
                            "axes": axes,
                            "folds": count,
                            "fold": fold,
                        },
                    )


def _cells(count: str, best: str | None, first: bool) -> Iterator[tuple[str, str, str]]:
    if count == "three":
        for title in BLOCKS:
            yield "frame-wise", title, "time"
        for title in BLOCKS if first else ():
            if title not in WITHOUT_AXES and title not in VARIANTS:
                yield "frame-wise", title, "spacetime"
        return
    for network, titles in NINE.items():
        for title in titles:
            yield network, title, "time"
    if best and best not in NINE["frame-wise"]:
        yield "frame-wise", best, "time"


def _fold_options(data: Path, fold: str) -> dict[str, str]:
    options = {}
    for loader, part in {"train": "train", "val": "test", "test": "test"}.items():
        dataset = f"{loader}_dataloader.dataset"
        options[f"{dataset}.ann_file"] = str(data / f"{fold}_{part}.txt")
        options[f"{dataset}.data_prefix.img"] = str(data / "frames")
    return options


def people_of(data: Path) -> dict[str, str]:
    """Read whose each clip is: each person's list of tests has all of them.

    Args:
        data (Path): The prepared data.

    Returns:
        dict[str, str]: ``person1`` to ``person9`` by the name of the clip.
    """
    found = {}
    for person in FOLDS["nine"]:
        lines = read_text(data / f"{person}_test.txt", "list").splitlines()
        found.update({line.split()[0]: person for line in lines if line.strip()})
    return found


def confusions_of_people(people: Mapping[str, str], dump: "DumpedResults") -> dict:  # noqa: F821
    """Count what each person's actions were taken for.

    Args:
        people (Mapping[str, str]): From :func:`people_of`.
        dump (DumpedResults): Predictions of one fold.

    Returns:
        dict: ``people``: for each, a matrix of counts, rows the true classes.
    """
    classes = dump.num_classes
    found: dict[str, list[list[int]]] = {}
    for name, label, predicted in zip(
        dump.names, dump.labels, dump.predictions, strict=True
    ):
        person = people[Path(name).name]
        counts = found.setdefault(person, [[0] * classes for _ in range(classes)])
        counts[int(label)][int(predicted)] += 1
    return {"people": dict(sorted(found.items()))}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line of ``tools/reproduce/nagoya_fir.sh``.

    Args:
        argv (Sequence[str], optional): Arguments; by default those of the process.

    Returns:
        argparse.Namespace: The arguments.
    """
    parser = argparse.ArgumentParser(
        description="Train every block on Nagoya FIR and write docs/real_data.md's "
        "tables and pictures. Goes on where it stopped.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data", type=Path, default=ROOT / "data/nagoya_fir", help="prepared data")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--folds", nargs="+", choices=list(FOLDS), default=list(FOLDS))
    add("--blocks", nargs="+", metavar="TITLE", help="train these only, no page")
    add(
        "--finished",
        action="store_true",
        help="train nothing: write the page from the seeds that are complete",
    )
    add("--jobs", type=int, default=2, help="trainings at once, one thread each")
    add("--work-dir", type=Path, default=ROOT / "work_dirs/reproduce_nagoya_fir")
    add("--results", type=Path, default=ROOT / "docs/results/nagoya_fir.json")
    add("--page", type=Path, default=PAGE)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what has not been run yet, and write the page.

    Args:
        argv (Sequence[str], optional): Arguments; by default those of the process.
    """
    args = parse_args(argv)
    with user_errors():
        _check(args)
        from polynl_mm import register

        register()
        from polynl_mm.experiments.many_trainings import read_finished, train_all
        from polynl_mm.experiments.nagoya_fir_page import best_other, write_page
        from polynl_mm.experiments.reduction_accuracy import write_reduction

        sum_up = partial(confusions_of_people, people_of(args.data))

        def results(folds: Sequence[str], best: str | None = None) -> list[dict]:
            planned = [
                training
                for training in plan(args.data, folds, args.seeds, best)
                if not args.blocks or training.about["block"] in args.blocks
            ]
            if args.finished:
                return read_finished(planned, args.work_dir)
            return train_all(planned, args.work_dir, args.jobs, sum_up)

        runs = results(["three"]) if "three" in args.folds else []
        if "nine" in args.folds:
            runs += results(["nine"], best_other(runs) if runs else None)
        if args.blocks or args.folds != list(FOLDS):
            print(f"{len(runs)} results are in {args.work_dir / 'results'}.")
            return
        kept = ("about", "seed", "seconds", "cpu_seconds", "torch", "people")
        write_json(args.results, [{key: run[key] for key in kept} for run in runs])
        write_page(runs, args.page)
        print(f"Written: {args.results}, {args.page} and its pictures.")
        if args.page == PAGE:
            write_reduction()


def _check(args: argparse.Namespace) -> None:
    expect_outputs(
        {"--results": args.results, "--page": args.page}, {"--work-dir": args.work_dir}
    )
    if args.jobs < 1:
        raise UserError(f"--jobs must be at least 1, not {args.jobs}.")
    for title in args.blocks or ():
        if title not in BLOCKS:
            hint = did_you_mean(title, BLOCKS) or f"; known: {', '.join(BLOCKS)}"
            raise UserError(f"--blocks: there is no {title!r}{hint}")
    if not (args.data / "person1_train.txt").is_file():
        raise UserError(
            f"--data: {args.data} has no lists of Nagoya FIR; "
            "tools/data/nagoya_fir/prepare.py makes them (see data/README.md)."
        )
