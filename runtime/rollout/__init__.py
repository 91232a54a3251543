"""Rollouts for reinforcement learning: what was said, token by token, and how groups of samples are played.

`TRLRollout`, which stands in `trl.py`, needs torch and is not loaded here.
"""

from .group import Group, Rules, Tally, rollout
from .record import ROOT, UNSAID, Node, NodeId, Piece, Rollout, Sample
from .toolbox import Result, Toolbox

__all__ = [
    "ROOT",
    "UNSAID",
    "Group",
    "Node",
    "NodeId",
    "Piece",
    "Result",
    "Rollout",
    "Rules",
    "Sample",
    "Tally",
    "Toolbox",
    "rollout",
]
