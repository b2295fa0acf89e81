"""Routes of news."""

from fastapi import APIRouter

router = APIRouter()
