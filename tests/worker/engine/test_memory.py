"""Freed memory is used again."""

import resource

import torch

from worker.engine.memory import keep_freed_memory


def test_a_tensor_of_the_size_of_one_just_freed_faults_in_no_new_pages():
    keep_freed_memory()
    for _ in range(10):  # the heap may grow once or twice more before it has a place of this size
        torch.ones(4 * 2**20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(4 * 2**20)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 4_096, "16 MB are 4,096 pages"
