"""The loop that users of onnxruntime write: a folder of images to PNG masks by a graph that gives logits."""

import argparse
from pathlib import Path

import numpy as np
import onnxruntime as ort
from PIL import Image

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model", type=Path, help="what torch.onnx.export wrote: float image (1, 3, H, W) to logits")
parser.add_argument("images", type=Path, help="a folder of JPEG files")
parser.add_argument("output", type=Path)
parser.add_argument("--size", type=int, nargs=2, required=True, metavar=("HEIGHT", "WIDTH"))
parser.add_argument("--mean", type=float, nargs=3, required=True)
parser.add_argument("--std", type=float, nargs=3, required=True)
parser.add_argument("--threads", type=int, default=1)
arguments = parser.parse_args()

options = ort.SessionOptions()
options.intra_op_num_threads = arguments.threads
session = ort.InferenceSession(arguments.model, options, providers=["CPUExecutionProvider"])
name = session.get_inputs()[0].name
mean = np.array(arguments.mean, np.float32) * 255
scale = 1 / (np.array(arguments.std, np.float32) * 255)
height, width = arguments.size
arguments.output.mkdir(parents=True, exist_ok=True)
for file in sorted(arguments.images.glob("*.jpg")):
    image = Image.open(file).convert("RGB")
    x = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    x -= mean
    x *= scale
    logits = session.run(None, {name: np.ascontiguousarray(x.transpose(2, 0, 1))[None]})[0]
    mask = Image.fromarray(logits[0].argmax(0).astype(np.uint8))
    mask.resize(image.size, Image.Resampling.NEAREST).save(arguments.output / f"{file.stem}.png")
