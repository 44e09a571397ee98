"""Verbs of published weights: take a base in, write one out, compare the two implementations."""

import argparse
from pathlib import Path

from omnihuman.cli.parsing import Adder
from omnihuman.errors import UserError

_PLACE = "folder in diffusers' layout (the transformer's or a whole pipeline's), or a hub id, owner/name[@revision]"
_VARIANT = "which of several sets of weights, e.g. bf16 (default: plain)"


def add_verbs(add: Adder) -> None:
    """Adds `omnihuman checkpoint ...`."""
    for add_verb in (_add_import, _add_export, _add_verify, _add_consolidate, _add_reshard):
        add_verb(add)


def _add_import(add: Adder) -> None:
    parser = add(
        "import",
        _import,
        "make a checkpoint of a published base, with our conditions around it",
        "omnihuman checkpoint import Motif-Technologies/Motif-Video-2B models/base --variant bf16",
    )
    parser.add_argument("path", metavar="PATH", help=_PLACE)
    parser.add_argument("out", type=Path, metavar="OUT", help="a new folder, e.g. models/base")
    parser.add_argument("--variant", default="", help=_VARIANT)
    parser.add_argument("--seed", type=int, default=0, help="of our conditions' first weights (default: %(default)s)")
    parser.add_argument(
        "--allow-other-encoders",
        action="store_true",
        help="though the configured encoders are not the base's: to export it again, not to train or render with it",
    )


def _add_export(add: Adder) -> None:
    parser = add(
        "export",
        _export,
        "write a checkpoint's base in the published layout, which diffusers loads",
        "omnihuman checkpoint export models/3_pose published --with-conditions",
    )
    parser.add_argument("path", type=Path, metavar="PATH", help="a checkpoint: model.safetensors and model.json")
    parser.add_argument("out", type=Path, metavar="OUT", help="a new folder")
    parser.add_argument(
        "--max-shard-gigabytes",
        type=float,
        default=10.0,
        metavar="N",
        help="split the weights into files of at most this size, behind an index (default: %(default)g)",
    )
    parser.add_argument(
        "--with-conditions", action="store_true", help="write our tensors beside it; `import` picks them up again"
    )


def _add_verify(add: Adder) -> None:
    parser = add(
        "verify",
        _verify,
        "compare our forward pass with diffusers' on a base's own weights; exit code 1 when they differ",
        "omnihuman checkpoint verify Motif-Technologies/Motif-Video-2B --dtype bfloat16 --device cuda",
    )
    parser.add_argument("path", metavar="PATH", help=_PLACE)
    parser.add_argument("--variant", default="", help=_VARIANT)
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="to run in (default: %(default)s)"
    )
    parser.add_argument("--device", default="cpu", help="of torch, e.g. cuda (default: %(default)s)")


def _add_consolidate(add: Adder) -> None:
    parser = add(
        "consolidate",
        _consolidate,
        "make a model of a stage's checkpoint, of one process or of many ranks",
        "omnihuman checkpoint consolidate ~/.omnihuman/work/KEY/checkpoints/step-00000400 models/at_400",
    )
    parser.add_argument("path", type=Path, metavar="PATH", help="a folder step-N below a stage's work")
    parser.add_argument("out", type=Path, metavar="OUT", help="a new folder: model.safetensors and model.json")


def _add_reshard(add: Adder) -> None:
    parser = add(
        "reshard",
        _reshard,
        "make a ZeRO checkpoint fit any number of ranks; training does so itself, with all GPUs waiting",
        "omnihuman checkpoint reshard ~/.omnihuman/work/KEY/checkpoints/step-00000400",
    )
    parser.add_argument("path", type=Path, metavar="PATH", help="a folder step-N, which is replaced")


def _import(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from omnihuman.config.load import load_params
    from omnihuman.data.encoding_plan import describe
    from omnihuman.model.import_base import import_base

    params = load_params()
    encoders, _ = describe(params.encode)
    imported = import_base(
        args.path,
        args.out,
        params.model,
        encoders,
        seed=args.seed,
        variant=args.variant,
        allow_other_encoders=args.allow_other_encoders,
    )
    description = imported.description
    print(f"{args.out}: from {description.parent}, {description.note}")
    print(f"{imported.base} of the base; {imported.conditions} of the conditions")
    configured, found = asdict(params.model), asdict(description.model)
    if others := [key for key in found if found[key] != configured[key]]:
        wanted = " ".join(f"model.{key}={_yaml(found[key])}" for key in others)
        print(f"params.yaml configures another model; compose with groups.model=motif_2b where that is it, or {wanted}")
    return 0


def _yaml(value: object) -> str:
    """As an override is written."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value)).replace(" ", "") if isinstance(value, tuple) else str(value)


def _export(args: argparse.Namespace) -> int:
    from omnihuman.model.export_base import export_base

    done = export_base(
        args.path, args.out, max_shard_gigabytes=args.max_shard_gigabytes, with_conditions=args.with_conditions
    )
    print(f"{args.out}: {done.num_tensors} tensors of the base in {done.num_files} file(s)")
    if done.with_conditions:
        print(f"{done.num_conditions} tensors of the conditions beside them")
    else:
        print(f"{done.num_conditions} tensors of the conditions are left out; --with-conditions writes them beside it")
    return 0


def _verify(args: argparse.Namespace) -> int:
    from omnihuman.model.verify_base import verify_base

    compared = verify_base(args.path, variant=args.variant, dtype=args.dtype, device=args.device)
    print("\n".join(compared.lines()))
    return 0 if compared.matches else 1


def _consolidate(args: argparse.Namespace) -> int:
    from omnihuman.storage.files import publish_folder
    from omnihuman.training.zero import consolidate

    if args.out.exists():
        raise UserError(f"{args.out} exists: name a new folder")
    with publish_folder(args.out) as folder:
        description = consolidate(args.path, folder)
    print(f"{args.out}: {description.stage} after {description.num_steps} steps")
    if description.note:
        print(description.note)
    return 0


def _reshard(args: argparse.Namespace) -> int:
    from omnihuman.training.zero import reshard

    print(f"{reshard(args.path)}: any number of ranks goes on from it")
    return 0
