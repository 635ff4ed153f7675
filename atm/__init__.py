"""Active Token Mixer (ATMNet) as a timm plug-in: importing this package registers the ``atmnet_*`` models."""

from atm import variants  # noqa: F401  (registers the models)
from atm.backbone import ATMNet

__all__ = ["ATMNet"]
__version__ = "0.1.0"
