"""Write an image of a seed as a PNG file, with numpy and ONNX Runtime: python sample.py BUNDLE SEED ROW OUT.png"""

import struct
import sys
import zlib
from statistics import NormalDist

import numpy as np
import onnxruntime


def noise(seed, row, dim):
    """Return a row of noise, float32 [1, dim], as docs/noise.md says. NormalDist.inv_cdf is AS 241 too."""
    words, low = [], 2**32 - 1
    for block in range(-(-dim // 4)):
        a, b, c, d = block, 0, row & low, row >> 32
        for i in range(10):
            p, q = 0xD2511F53 * a, 0xCD9E8D57 * c
            key0, key1 = (seed + i * 0x9E3779B9) & low, ((seed >> 32) + i * 0xBB67AE85) & low
            a, b, c, d = (q >> 32) ^ b ^ key0, q & low, (p >> 32) ^ d ^ key1, p & low
        words += [a, b, c, d]
    return np.float32([[NormalDist().inv_cdf((word + 0.5) / 2**32) for word in words[:dim]]])


def png(image):
    """Return a PNG file of an image, uint8 [H, W, 1 or 3]."""
    header = struct.pack(">2I5B", image.shape[1], image.shape[0], 8, 0 if image.shape[2] == 1 else 2, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in image))
    chunks = (b"IHDR" + header, b"IDAT" + rows, b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join((len(c) - 4).to_bytes(4) + c + zlib.crc32(c).to_bytes(4) for c in chunks)


valid = len(sys.argv) == 5 and all(word.isdecimal() and int(word) < 2**53 for word in sys.argv[2:4])
bundle, seed, row, out = sys.argv[1:] if valid else sys.exit(__doc__)
prior, decoder = (onnxruntime.InferenceSession(f"{bundle}/{graph}.onnx") for graph in ("prior", "decoder"))
(latent,) = prior.run(None, {"noise": noise(int(seed), int(row), prior.get_inputs()[0].shape[1])})
(images,) = decoder.run(None, {"latent": latent})
with open(out, "wb") as file:
    file.write(png(images[0]))
