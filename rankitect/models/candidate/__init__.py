"""Candidates on disk: an architecture of a space with its weights and everything needed to use it.

A folder holds safetensors and JSON only (docs/candidate-format.md). What is common to all tasks is in `folder` and
`base`; what comes with a language model, a ranker or a classifier of images in `language`, `ranking` and `images`.
Enter through `load_candidate`.
"""

from rankitect.models.candidate.as_backbone import load_backbone
from rankitect.models.candidate.base import Candidate, save_model
from rankitect.models.candidate.folder import CARD, SCHEMA
from rankitect.models.candidate.images import ImageCandidate, save_image_classifier
from rankitect.models.candidate.language import save_candidate
from rankitect.models.candidate.load import load_candidate, load_language_model, load_ranker
from rankitect.models.candidate.ranking import RankingCandidate, save_ranker
from rankitect.models.candidate.scoring import LanguageCandidate, TextScore

__all__ = [
    "CARD",
    "SCHEMA",
    "Candidate",
    "ImageCandidate",
    "LanguageCandidate",
    "RankingCandidate",
    "TextScore",
    "load_backbone",
    "load_candidate",
    "load_language_model",
    "load_ranker",
    "save_candidate",
    "save_image_classifier",
    "save_model",
    "save_ranker",
]
