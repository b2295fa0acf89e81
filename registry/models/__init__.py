"""The tables, one module a noun."""

from registry.models.accounts import LoginSession, User
from registry.models.base import Base
from registry.models.chats import Chat, Turn
from registry.models.checkpoints import Checkpoint
from registry.models.evaluations import Evaluation, Result
from registry.models.news import Post
from registry.models.runs import MetricPoint, Run
from registry.models.suites import Suite, Task
from registry.models.tickets import Ticket

__all__ = [
    "Base",
    "Chat",
    "Checkpoint",
    "Evaluation",
    "LoginSession",
    "MetricPoint",
    "Post",
    "Result",
    "Run",
    "Suite",
    "Task",
    "Ticket",
    "Turn",
    "User",
]
