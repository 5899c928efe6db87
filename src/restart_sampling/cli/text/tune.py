"""`restart-sampling text tune`: the sampler that suits a pipeline, found and defended with figures."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import click

from restart_sampling.base.logbook import open_logbook
from restart_sampling.base.machine import describe_device
from restart_sampling.cli import Command
from restart_sampling.cli.dry_run import dry_run_option, estimate_tuning, print_estimate
from restart_sampling.cli.options import DETECTOR_HELP, ProcessOptions, json_option, print_settings, process_options
from restart_sampling.cli.text.pipeline_options import (
    PipelineOptions,
    describe_model,
    describe_notes,
    guidance_option,
    measure_with,
    pipeline_options,
    prompts_option,
    read_captions,
)
from restart_sampling.cli.tune_options import SearchOptions, read_nfes, search_options, told_by
from restart_sampling.text_to_image.bundled import TINY
from restart_sampling.tuning.allowed import LEAST_NFE


@click.command(cls=Command)
@prompts_option
@click.option(
    "--nfe",
    "nfe_text",
    required=True,
    metavar="NFE",
    help=f"Rows of the scheduler for an image, at least {LEAST_NFE}, such as 25 or 20,25.",
)
@click.option(
    "--reference",
    "reference_name",
    metavar="NPZ",
    help=f"Statistics that samplers are judged by; default: CIFAR-10's, for {TINY} alone.",
)
@click.option(
    "--detector",
    "detector_name",
    help=f"{DETECTOR_HELP}  [default: tiny-clip with the default reference, else inception]",
)
@click.option(
    "--clip",
    "clip_name",
    metavar="MODEL",
    help=f"For the CLIP score of the confirmed samplers: a CLIP on the Hugging Face hub or its folder; default: "
    f"tiny-clip for {TINY}, else none.",
)
@guidance_option
@click.option(
    "--tune-guidance",
    is_flag=True,
    help="Search the guidance scale too, around --guidance; what is found may not fit the prompts worse, by the CLIP.",
)
@search_options
@pipeline_options
@process_options
@dry_run_option
@json_option
def tune(
    prompts_path: Path | None,
    nfe_text: str,
    reference_name: str | None,
    detector_name: str | None,
    clip_name: str | None,
    guidance: float | None,
    tune_guidance: bool,
    search: SearchOptions,
    asked: PipelineOptions,
    processes: ProcessOptions,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Find the sampler that suits a pipeline at a guidance scale.

    It takes usual samplers, a search, a race, and a confirmation. The same command goes on after an interruption;
    also under torchrun. OUT/plan-25.json is then a sampler.

    \b
      restart-sampling text tune --nfe 25 --out tuned
      restart-sampling text generate --scheduler tuned/plan-25.json --images 64 --out images
      restart-sampling report tuned --out tuned.html
    """
    search.check(dry_run)
    nfes = read_nfes(nfe_text)
    prompts_path, guidance = asked.captions(prompts_path), asked.scale(guidance)
    reference_name, detector_name = measure_with(asked, reference_name, detector_name)

    from restart_sampling.evaluation.clip import ClipScore, load_clip
    from restart_sampling.evaluation.tiny_clip import TINY_CLIP
    from restart_sampling.tuning.budget import check_nfe
    from restart_sampling.tuning.text_run import any_sampler, make_text_run

    settings, out = replace(search.settings(), tune_guidance=tune_guidance), search.out
    for nfe in nfes:
        check_nfe(nfe)
    clip_name = clip_name or (TINY_CLIP if asked.tiny else None)
    prompts = read_captions(prompts_path, None)
    with processes.ranks() as ranks, ExitStack() as held:
        tell = told_by(ranks)
        if ranks.first:
            judges = [detector_name, *search.confirm_detectors, *([f"CLIP score by {clip_name}"] if clip_name else [])]
            print_settings(
                {
                    "NFE": f"{', '.join(map(str, nfes))}, guidance {guidance:g}"
                    + ", and searched around it" * tune_guidance,
                    "prompts": f"{len(prompts)} ({prompts_path}), by seed",
                    "judged by": ", ".join(judges),
                    "time": search.time,
                    "out": out,
                }
            )
        tell(f"loading {asked.model_name} and what judges it")
        with ranks.one_goes_first():
            setups = search.setups(detector_name, reference_name, ranks.device)
            clip = ClipScore(load_clip(clip_name, ranks.device)) if clip_name else None
            model = asked.load(ranks.device)
            run = make_text_run(
                model,
                asked.request(any_sampler(model), guidance, 0),
                prompts,
                setups,
                settings,
                clip=clip,
                ranks=ranks,
                folder=out,
                batch=None if asked.batch is None else settings.even(asked.batch),
                tell=tell,
            )
            tell("trying what the usual samplers cost in the pipeline, and how long they take")
            spaces = [run.space(nfe) for nfe in nfes]
            if ranks.first:
                held.enter_context(search.begun(run, spaces, dry_run))
        if ranks.first:
            notes = [setup.note for setup in setups if setup.note]
            print_settings(
                {
                    "model": describe_model(model),
                    **describe_notes([run.first]),
                    "device": f"{ranks.size} x {describe_device(ranks.device)}, networks in {model.dtype}",
                    **({"note": notes[0]} if notes else {}),
                }
            )
        if dry_run:
            first = run.draw(spaces[0].usual()[0])
            print_estimate(out, estimate_tuning(run, first, setups, spaces), as_json, shown=ranks.first)
            return
        with open_logbook(search.log_kind if ranks.first else None, out, "plans", {**run.about, "nfe": nfes}) as log:
            logged = replace(run, log=log)
            found = {space.nfe: logged.tune(space) for space in spaces}
        if ranks.first:
            search.print_found(found, as_json)
