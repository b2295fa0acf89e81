"""What a person does with an unmodified `huggingface_hub`; run by `test_hub_clients` as a program of its own."""

import sys
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError

folder, other, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
hub = HfApi()
user = hub.whoami()["name"]
repo = hub.create_repo(name)
assert repo.repo_id == f"{user}/{name}"
assert hub.create_repo(name, exist_ok=True) == repo

made = hub.upload_folder(repo_id=repo.repo_id, folder_path=folder, commit_message="Training in progress, step 100")
assert len(made.oid) == 40
assert hub.repo_info(repo.repo_id).sha == made.oid  # its owner sees it before it is verified
again = hub.upload_folder(repo_id=repo.repo_id, folder_path=folder, commit_message="Training in progress, step 100")
assert again.oid == made.oid

hub.create_branch(repo.repo_id, branch="step-200")
hub.create_branch(repo.repo_id, branch="step-200", exist_ok=True)
hub.upload_folder(repo_id=repo.repo_id, folder_path=other, revision="step-200")

hub.upload_file(repo_id=repo.repo_id, path_or_fileobj=b"# Tiny", path_in_repo="README.md")
operations = [CommitOperationAdd("notes.txt", b"notes"), CommitOperationDelete("README.md")]
last = hub.create_commit(
    repo.repo_id, operations, commit_message="Change", parent_commit=hub.repo_info(repo.repo_id).sha
)
late = [CommitOperationAdd("late.txt", b"late")]
with pytest.raises(HfHubHTTPError, match="has moved on"):
    hub.create_commit(repo.repo_id, late, commit_message="Late", parent_commit=made.oid)

hub.create_tag(repo.repo_id, tag="v1")
hub.create_tag(repo.repo_id, tag="v1", exist_ok=True)
hub.delete_tag(repo.repo_id, tag="v1")
refs = hub.list_repo_refs(repo.repo_id)
assert {branch.name for branch in refs.branches} >= {"main"}, refs
assert set(hub.list_repo_files(repo.repo_id)) >= {"config.json", "model.safetensors", "notes.txt"}
assert "README.md" not in hub.list_repo_files(repo.repo_id)
assert "training_args.bin" not in hub.list_repo_files(repo.repo_id)
assert len(last.oid) == 40
