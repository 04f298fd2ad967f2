"""scripts/import-face-db: real encodings out of a pickle, then recognised in a photo."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import face_recognition
import numpy as np

from tests.support.daemon import edge_face, write_config

ROOT = Path(__file__).parents[2]


def import_face_db(*args: str | Path) -> subprocess.CompletedProcess[str]:
    """The Python part, with this Python: the shell part only sets up .venv/."""
    command = [sys.executable, str(ROOT / "scripts" / "import_face_db.py"), *map(str, args)]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)


def test_people_of_a_pickle_are_recognised(data: Path, tmp_path: Path) -> None:
    photos = sorted((data / "lfw" / "George_W_Bush").iterdir())[:3]
    first, second, probe = (face_recognition.load_image_file(photo) for photo in photos)
    encodings = [face_recognition.face_encodings(photo)[0] for photo in (first, second)]
    other = np.random.default_rng(3).normal(0, 0.1, 128)
    file = tmp_path / "face_db.pkl"
    file.write_bytes(pickle.dumps({"George": encodings, "": other, "Twin": encodings[0], "Other": other}))
    config = write_config(tmp_path, {})

    done = import_face_db("--config", config, file)
    assert done.returncode == 1
    assert done.stdout == "enrolled 2 of 4 people\n"
    refused = done.stderr.splitlines()
    assert refused[0].startswith("refused '': ")
    assert refused[1].startswith("refused 'Twin': This face would pass as George")

    told = edge_face("recognize", "--json", photos[2], config=config)
    faces = json.loads(told.stdout)["faces"]
    mine = face_recognition.face_encodings(probe)[0]
    expected = face_recognition.face_distance(encodings, mine).min()
    (george,) = [face for face in faces if face["distance"] is not None and abs(face["distance"] - expected) < 0.01]
    assert george["name"] == ("George" if expected <= 0.45 else None)
    people = json.loads(edge_face("people", "--json", config=config).stdout)
    assert {person["name"]: person["faces"] for person in people} == {"George": 2, "Other": 1}

    again = import_face_db("--config", config, "--force", file)
    assert again.stdout == "enrolled 3 of 4 people\n"


def test_what_is_no_face_database_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "face_db.pkl"
    file.write_bytes(b"no pickle")
    for path in (file, tmp_path / "missing.pkl"):
        done = import_face_db("--config", write_config(tmp_path, {}), path)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("import-face-db: ")
        assert done.stderr.count("\n") == 1
