"""The tables, one module a noun."""

from registry.models.accounts import LoginSession, User
from registry.models.api import ApiCall, ApiKey
from registry.models.arena import Vote
from registry.models.base import Base
from registry.models.care import Alias, RetentionRule
from registry.models.chats import Chat, ChatGroup, Turn
from registry.models.checkpoints import Checkpoint, CheckpointParent
from registry.models.downloads import GitBlob, Mirror
from registry.models.evaluations import Change, Evaluation, Result, ScoreColumn, Slice
from registry.models.forecasts import Forecast
from registry.models.hub import HubCommit, HubRef, HubRepo
from registry.models.jobs import Job
from registry.models.memory import MemoryPeak
from registry.models.news import Post
from registry.models.prompts import ProposedPrompt
from registry.models.quantization import QuantizationLoss
from registry.models.runs import MetricPoint, Run, SupersededPoint
from registry.models.safety import AuditEntry, BlockedPattern, Report
from registry.models.site import SiteSetting
from registry.models.suites import Suite, Task
from registry.models.tickets import Ticket
from registry.models.uploads import Upload, UploadFile
from registry.models.webhooks import Webhook, WebhookDelivery

__all__ = [
    "Alias",
    "ApiCall",
    "ApiKey",
    "AuditEntry",
    "Base",
    "BlockedPattern",
    "Change",
    "Chat",
    "ChatGroup",
    "Checkpoint",
    "CheckpointParent",
    "Evaluation",
    "Forecast",
    "GitBlob",
    "HubCommit",
    "HubRef",
    "HubRepo",
    "Job",
    "LoginSession",
    "MemoryPeak",
    "MetricPoint",
    "Mirror",
    "Post",
    "ProposedPrompt",
    "QuantizationLoss",
    "Report",
    "Result",
    "RetentionRule",
    "Run",
    "ScoreColumn",
    "SiteSetting",
    "Slice",
    "Suite",
    "SupersededPoint",
    "Task",
    "Ticket",
    "Turn",
    "Upload",
    "UploadFile",
    "User",
    "Vote",
    "Webhook",
    "WebhookDelivery",
]
