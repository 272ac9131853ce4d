"""keras.applications with random weights: what `ngc verify` says.

    KERAS_BACKEND=torch python -m benchmarks.keras_applications [NAME...] [--size 96]

All have their top, of 10 classes. Needs `pip install 'ngc[keras]'`. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("KERAS_BACKEND", "torch")

# Height and width of the images. The edges of VGG16's first Linear grow with them: 28 million edges
# at 64, which take 2.3 GB.
SIZES = {
    "MobileNetV2": 96, "MobileNetV3Small": 96, "EfficientNetB0": 96, "ResNet50": 96,
    "DenseNet121": 96, "InceptionV3": 96, "Xception": 96, "VGG16": 64,
}  # fmt: skip


def main() -> None:
    import keras
    import torch

    import ngc

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("names", nargs="*", default=list(SIZES))
    parser.add_argument("--size", type=int, help="of the images; default: 96, of VGG16 64")
    args = parser.parse_args()
    for name in args.names:
        start = time.perf_counter()
        size = args.size or SIZES.get(name, 96)
        model = getattr(keras.applications, name)(
            weights=None, input_shape=(size, size, 3), classes=10
        )
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in model.weights:  # scales of one and shifts of zero would hide mistakes
                if weight.value.ndim == 1:
                    weight.value.add_(0.1 * torch.rand(weight.shape, generator=generator))
        compiled = ngc.compile(model)
        middle = time.perf_counter()
        checks = "; ".join(
            f"{check.name} {'pass' if check.passed else 'FAIL'} {check.figure} {check.detail}"
            for check in ngc.verify(compiled).checks
        )
        kept = compiled.state_dict()
        back = all(torch.equal(kept[w.path], w.value) for w in model.weights)
        print(f"{name} {size}x{size}: {compiled.plan.num_nodes} nodes, {compiled.plan.num_edges} "
              f"edges, weights {'same' if back else 'DIFFER'}; {checks}")  # fmt: skip
        print(f"  compile {middle - start:.1f} s, verify {time.perf_counter() - middle:.1f} s",
              flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
