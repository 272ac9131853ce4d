"""Where the files of one network give different graphs, because the files are different networks.

Strict: an entry that no longer holds fails the test, and so does a difference without an entry.
"""

from __future__ import annotations

FOLDED = "the exporter has folded BatchNorm into the weights before it; norm=fold makes them alike"
BAKED = "the exporter has stored the class token once for each entry of the batch"

# (network, exporter) -> why its graph differs from that of the dynamo exporter, not optimised.
KNOWN_DIFFERENCES: dict[tuple[str, str], str] = {
    ("class_token", "dynamo_optimised"): BAKED,
    ("batch_norm_1d", "dynamo_optimised"): FOLDED,  # the legacy exporter folds into Conv only
    **{
        (name, exporter): FOLDED
        for name in (
            "batch_norm_2d",
            "batch_norm_plain",
            "depthwise_separable",
            "resnet",
            "resnet_zero_padded",
        )
        for exporter in ("dynamo_optimised", "legacy")
    },
}

# Networks with BatchNorm, to be compared with norm=fold too.
WITH_BATCH_NORM = (
    "densenet",
    *dict.fromkeys(name for (name, _), why in KNOWN_DIFFERENCES.items() if why == FOLDED),
)
