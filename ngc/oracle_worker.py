"""The worker process of ``oracle.py``: answers requests on stdin, one JSON line each.

Run as a script, so that it imports onnxruntime and numpy and nothing else.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime


def main() -> None:
    settings = json.loads(sys.argv[1])
    # Only answers may go to stdout: whatever the library prints goes to the log.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    worker = Worker(Path(settings["folder"]), settings["threads"])
    for line in sys.stdin:
        try:
            answer = worker.answer(json.loads(line))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


class Worker:
    """One session at a time."""

    def __init__(self, folder: Path, threads: int) -> None:
        self.folder, self.session = folder, None
        self.options = onnxruntime.SessionOptions()
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.options.graph_optimization_level = level
        self.options.intra_op_num_threads = threads
        self.options.inter_op_num_threads = 1
        self.options.log_severity_level = 4

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if "load" in request:
            self.session = None  # free the old model first
            self.session = onnxruntime.InferenceSession(
                request["load"], self.options, providers=["CPUExecutionProvider"]
            )
            return {}
        feeds = {}
        for name, file in request["run"].items():
            array = np.load(self.folder / file, allow_pickle=False)
            feeds[name] = array.astype(object) if array.dtype.kind == "U" else array
        assert self.session is not None
        names = [value.name for value in self.session.get_outputs()]
        outputs = {}
        for k, (name, array) in enumerate(zip(names, self.session.run(None, feeds))):
            array = np.asarray(array)
            outputs[name] = f"out{k}.npy"
            plain = array.astype(str) if array.dtype == object else array
            np.save(self.folder / outputs[name], plain, allow_pickle=False)
        return {"outputs": outputs}


if __name__ == "__main__":
    main()
