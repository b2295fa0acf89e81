"""Routes of chats."""

from fastapi import APIRouter

router = APIRouter()
