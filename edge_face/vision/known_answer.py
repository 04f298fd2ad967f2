"""A self-test: on this machine an encoder must say of one fixed picture what dlib says."""

from __future__ import annotations

import time

import numpy as np

from edge_face.errors import ModelError
from edge_face.images import RgbImage
from edge_face.vision.interfaces import CHIP_SIZE, Encoder

_TOLERANCE = 1e-4
"""L2. The converted networks are within 3e-6 on x86-64 and aarch64; half precision, or other weights, are not."""

# fmt: off
KNOWN_ANSWER = (
    -0.0795103, 0.1123505, 0.0666939, -0.0537786, -0.1061717, -0.0145429, -0.0837916, 0.0116380,
    0.1180095, -0.0447331, 0.1896140, -0.0296493, -0.2332248, 0.0278038, -0.0103431, 0.0887184,
    -0.1134665, -0.0552838, -0.1148103, -0.1024522, 0.0500716, 0.0818421, -0.0305275, 0.0513744,
    -0.0801967, -0.2843291, -0.0610196, -0.0967479, 0.0920227, -0.1732516, -0.0221344, 0.0358108,
    -0.1038171, -0.0228817, -0.0067008, 0.0248143, -0.0298595, -0.1310089, 0.1594546, -0.0057607,
    -0.1432757, -0.0313338, 0.0612288, 0.3039138, 0.1723072, 0.0255914, 0.0438997, -0.0314070,
    0.1108116, -0.2824008, 0.0438566, 0.1302613, 0.0347363, 0.1182924, 0.1131893, -0.2106849,
    0.0449250, 0.1086013, -0.1520817, 0.1064963, 0.0608625, -0.0746466, -0.0412720, -0.1152685,
    0.2229642, 0.0806204, -0.0852754, -0.1565641, 0.1029349, -0.1594475, -0.0333511, 0.1295975,
    -0.1171242, -0.1625305, -0.1884270, 0.1272615, 0.3714905, 0.2113321, -0.1274536, 0.0573203,
    -0.0315991, -0.0531326, 0.0546142, 0.0482050, -0.0852129, -0.0146260, -0.0833755, 0.0669113,
    0.2086342, -0.0310941, 0.0353087, 0.2075173, 0.0137441, -0.0318177, 0.0112531, 0.0299455,
    -0.1195925, 0.0183015, -0.0606541, 0.0222384, 0.1166926, -0.1748759, 0.0141610, 0.0841345,
    -0.1862579, 0.1387307, -0.0287263, -0.0276480, 0.0152704, 0.0145540, -0.0837968, -0.0155994,
    0.2065550, -0.2425233, 0.1793766, 0.1796276, 0.1048382, 0.1407824, 0.0265830, 0.1397538,
    0.0034727, -0.0114913, -0.1177302, -0.0611242, 0.0384453, -0.0139917, -0.0419497, 0.0265494,
)
# fmt: on
"""Of dlib 20.0.1 on x86-64 for the test chip, rounded to 7 digits."""


def test_chip() -> RgbImage:
    """A fixed picture that depends on nothing but this code: three plane waves, one per channel."""
    y, x = np.mgrid[0:CHIP_SIZE, 0:CHIP_SIZE].astype(np.float64)
    waves = [np.sin(x / 7.0), np.sin(y / 11.0), np.sin((x + y) / 17.0)]
    return np.stack([np.rint(127.5 + 100.0 * wave) for wave in waves], axis=-1).astype(np.uint8)


def self_test(encoder: Encoder) -> float:
    """Refuse an encoder that is wrong on this machine (a GPU build once returned NaN for all). Raises ModelError.

    The test chip must get dlib's own answer, also as the second of two in one run, and its mirror image the same answer
    alone and in company. Returns milliseconds for one face.
    """
    chip = test_chip()
    mirrored = np.ascontiguousarray(chip[:, ::-1])
    pair = encoder.encode(np.stack([mirrored, chip]))
    if pair.shape != (2, 128) or not np.isfinite(pair).all():
        raise ModelError(f"The {encoder.name} encoder returns no numbers on this machine.")
    known = np.array(KNOWN_ANSWER)
    length, wanted = float(np.linalg.norm(pair[1])), float(np.linalg.norm(known))
    if abs(length - wanted) > _TOLERANCE:
        raise ModelError(
            f"The {encoder.name} encoder fails its known-answer test on this machine: its vector has the length "
            f"{length:.4f}, not {wanted:.4f}."
        )
    error = float(np.linalg.norm(pair[1] - known))
    if error > _TOLERANCE:
        raise ModelError(
            f"The {encoder.name} encoder fails its known-answer test on this machine (off by {error:.2g})."
        )
    begin = time.perf_counter()
    alone = encoder.encode(mirrored[np.newaxis])
    took_ms = (time.perf_counter() - begin) * 1000
    error = float(np.linalg.norm(alone[0] - pair[0]))
    if not error <= _TOLERANCE:
        raise ModelError(f"The {encoder.name} encoder answers differently for one face and for two (by {error:.2g}).")
    return took_ms
