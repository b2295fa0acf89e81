"""Routes of checkpoints."""

from fastapi import APIRouter

router = APIRouter()
