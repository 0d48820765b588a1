"""The one error of a campaign that is no error of a cell."""

from mho.errors import TrainingError


class CampaignError(TrainingError):
    """A campaign cannot start or go on: its folder is in use, a package is missing, no worker starts."""
