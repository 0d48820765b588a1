"""``mho sweep``: a campaign from its TOML to its results and page."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from mho.campaign.engine import CampaignRun, hire_crew, run_cells
from mho.campaign.lock import held
from mho.campaign.plan import plan
from mho.campaign.progress import Progress
from mho.campaign.settings import Campaign, dump_campaign, load_campaign
from mho.campaign.work import campaign_work
from mho.evaluation.atomic import write_atomically


def run_campaign(
    campaign: Campaign | str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] = "campaigns",
    workers: int | None = None,
    ray: str | None = None,
    retry: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> CampaignRun:
    """Run every cell of ``campaign`` that has not come to an end in ``<out>/<name>/``, and write its page.

    ``workers``: processes of one torch thread each (None: one for each core that this process may use); ``ray``: the
    address of a cluster instead ("local": one of its own), whose machines see ``out`` under the same path. ``retry``:
    cells that failed or were given up run again. Ctrl-C ends it cleanly with :class:`KeyboardInterrupt`: cells in
    hand have five seconds, the others start with the next call.

    Raises :class:`RecipeError` for what is wrong with the campaign, before anything is written, and
    :class:`CampaignError` for a folder in use, no Ray, or workers that do not start. A cell's own error is a row of
    the results.
    """
    described = campaign if isinstance(campaign, Campaign) else load_campaign(campaign)
    folder = Path(out) / described.name
    cells = plan(described, folder.resolve())
    work = partial(campaign_work, None if data_dir is None else str(Path(data_dir).resolve()))
    with held(folder / ".lock", f"campaign {folder}"):
        write_atomically(folder / "campaign.toml", dump_campaign(described).encode())
        return run_cells(
            described.name,
            cells,
            folder,
            partial(hire_crew, work, workers, ray),
            text=dump_campaign(described),
            retry=retry,
            on_progress=on_progress,
        )
