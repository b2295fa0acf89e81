"""Routes of runs."""

from fastapi import APIRouter

router = APIRouter()
