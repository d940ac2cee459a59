"""What a report holds of the trials behind an INT8 graph, with every kind of row."""

import dataclasses as dc

from dlcv_deploy.study import (
    LayerDamage,
    Mixed,
    Point,
    QuantizationStudy,
    Robustness,
    Score,
    Spread,
    Tournament,
)


def study():
    scores = (
        Score("max", 128, 4, 0.00139, 26.314, 0.331, 91.40625, 92.1875, 0.78125, -1.6, 3.9),
        Score("mse", 128, 2, 0.00112, 28.021, 0.347, 92.1875, 92.1875, 0.0, -2.9, 2.9),
        Score("mse, bias corrected", 128, 1, 0.00061, 28.13, 0.341, 92.96875, 92.1875, -0.78125, -4.3, 2.2),
        Score("percentile", 128, 3, 0.00122, 26.5, 0.325, 92.96875, 92.1875, -0.78125, -4.3, 2.2),
        Score("entropy", failed="nothing in resnet20 can be computed in int8: its input input was 0"),
    )
    layers = tuple(
        LayerDamage(f"conv_{i}", f"layer1.{i}.conv1", 2_359_296, dc.replace(scores[1], name="", sqnr_db=40.0 + i))
        for i in range(1, 11)
    )
    alone = LayerDamage("gemm_1", "fc", 640, Score("fc", failed="nothing in resnet20 can be computed in int8"))
    exact = Score("", 128, 0, 0.0, 144.0, 0.0, 92.1875, 92.1875, 0.0, -2.9, 2.9)
    points = (
        Point(1.0, (), (), scores[0], 0.412),
        Point(0.958, ("conv_1", "gemm_1"), ("conv1", "fc"), scores[1], 0.431),
        Point(0.93, ("conv_2",), ("layer1.0.conv1",), scores[0]),
        Point(0.5, tuple(f"conv_{i}" for i in range(1, 11)), tuple(f"layer1.{i}.conv1" for i in range(10)), scores[2]),
        Point(0.0, ("conv_1",), ("conv1",), exact, 1.25),
    )
    return QuantizationStudy(
        "128 held out of: 512 CIFAR-10 training images",
        Tournament(scores, "mse, bias corrected", "mse"),
        Robustness(
            192,
            (scores[0], scores[1], scores[2], scores[4]),
            (Spread("conv_3_out", 1.0, 1.25, 22.2222), Spread("input", 2.0, 2.0, 0.0)),
        ),
        (*layers, alone),
        Mixed(0.1, "top-1", True, points[1], points),
    )
