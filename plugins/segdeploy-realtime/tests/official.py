"""The authors' segmentation network (https://github.com/ydhongHIT/DDRNet), restated: their names, their order of steps.

Sizes must be multiples of 8, as theirs. It shares no line with the package that it checks.
"""

import torch
import torch.nn.functional as F
from torch import nn

KINDS = {
    "23_slim": {"planes": 32, "layers": [2, 2, 2, 2], "head": 64},
    "23": {"planes": 64, "layers": [2, 2, 2, 2], "head": 128},
    "39": {"planes": 64, "layers": [3, 4, 6, 3], "head": 256},
}


def conv(i, o, k, s=1, bias=False):
    return nn.Conv2d(i, o, k, s, k // 2, bias=bias)


class Block(nn.Module):
    def __init__(self, widths, kernels, stride, last):
        super().__init__()
        strided = kernels.index(3)
        self.count, self.last, self.downsample = len(kernels), last, None
        for n, k in enumerate(kernels):
            setattr(self, f"conv{n + 1}", conv(widths[n], widths[n + 1], k, stride if n == strided else 1))
            setattr(self, f"bn{n + 1}", nn.BatchNorm2d(widths[n + 1]))
        if stride != 1 or widths[0] != widths[-1]:
            self.downsample = nn.Sequential(conv(widths[0], widths[-1], 1, stride), nn.BatchNorm2d(widths[-1]))

    def forward(self, x):
        residual = x if self.downsample is None else self.downsample(x)
        for n in range(1, self.count + 1):
            x = getattr(self, f"bn{n}")(getattr(self, f"conv{n}")(x))
            x = F.relu(x) if n < self.count else x
        return x + residual if self.last else F.relu(x + residual)


def basic(i, o, count, stride=1):
    blocks = [Block([i, o, o], [3, 3], stride, last=False)]
    blocks += [Block([o, o, o], [3, 3], 1, last=n == count - 1) for n in range(1, count)]
    return nn.Sequential(*blocks)


def bottleneck(i, stride=1):
    return nn.Sequential(Block([i, i, i, 2 * i], [1, 3, 1], stride, last=True))


def pre(i, o, k, pool=None):
    return nn.Sequential(*([pool] if pool else []), nn.BatchNorm2d(i), nn.ReLU(), conv(i, o, k))


class SegmentHead(nn.Module):
    def __init__(self, i, mid, classes):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(i), conv(i, mid, 3)
        self.bn2, self.conv2 = nn.BatchNorm2d(mid), conv(mid, classes, 1, bias=True)

    def forward(self, x):
        return self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))


class SPP(nn.Module):
    def __init__(self, i, mid, o):
        super().__init__()
        pools = [None, nn.AvgPool2d(5, 2, 2), nn.AvgPool2d(9, 4, 4), nn.AvgPool2d(17, 8, 8), nn.AdaptiveAvgPool2d(1)]
        for n, pool in enumerate(pools):
            setattr(self, f"scale{n}", pre(i, mid, 1, pool))
            if n:
                setattr(self, f"process{n}", pre(mid, mid, 3))
        self.compression, self.shortcut = pre(5 * mid, o, 1), pre(i, o, 1)

    def forward(self, x):
        steps = [self.scale0(x)]
        for n in range(1, 5):
            up = F.interpolate(getattr(self, f"scale{n}")(x), size=x.shape[-2:], mode="bilinear")
            steps.append(getattr(self, f"process{n}")(up + steps[-1]))
        return self.compression(torch.cat(steps, 1)) + self.shortcut(x)


class Official(nn.Module):
    """(N, 3, H, W) -> (logits, auxiliary logits), both at H / 8, W / 8."""

    def __init__(self, kind, classes=19):
        super().__init__()
        planes, layers, head = KINDS[kind]["planes"], KINDS[kind]["layers"], KINDS[kind]["head"]
        hi, lo = planes * 2, planes * 4
        stem = [nn.Conv2d(3, planes, 3, 2, 1), nn.BatchNorm2d(planes), nn.ReLU()]
        stem += [nn.Conv2d(planes, planes, 3, 2, 1), nn.BatchNorm2d(planes), nn.ReLU()]
        self.conv1 = nn.Sequential(*stem)
        self.layer1, self.layer2 = basic(planes, planes, layers[0]), basic(planes, hi, layers[1], 2)
        self.thirds = ["3_1", "3_2"] if kind == "39" else ["3"]
        for name in self.thirds:
            first, count = name == self.thirds[0], layers[2] // len(self.thirds)
            setattr(self, f"layer{name}", basic(hi if first else lo, lo, count, 2 if first else 1))
            setattr(self, f"layer{name}_", basic(hi, hi, count))
            setattr(self, f"compression{name}", nn.Sequential(conv(lo, hi, 1), nn.BatchNorm2d(hi)))
            setattr(self, f"down{name}", nn.Sequential(conv(hi, lo, 3, 2), nn.BatchNorm2d(lo)))
        self.layer4, self.layer4_ = basic(lo, 2 * lo, layers[3], 2), basic(hi, hi, layers[3])
        self.compression4 = nn.Sequential(conv(2 * lo, hi, 1), nn.BatchNorm2d(hi))
        down = [conv(hi, lo, 3, 2), nn.BatchNorm2d(lo), nn.ReLU(), conv(lo, 2 * lo, 3, 2), nn.BatchNorm2d(2 * lo)]
        self.down4 = nn.Sequential(*down)
        self.layer5_, self.layer5 = bottleneck(hi), bottleneck(2 * lo, 2)
        self.spp = SPP(4 * lo, 128, lo)
        self.seghead_extra, self.final_layer = SegmentHead(hi, head, classes), SegmentHead(lo, head, classes)

    def forward(self, image):
        size = [image.shape[-2] // 8, image.shape[-1] // 8]

        def up(x):
            return F.interpolate(x, size=size, mode="bilinear")

        x = self.layer2(F.relu(self.layer1(self.conv1(image))))
        x_ = x
        for name in self.thirds:
            x, x_ = getattr(self, f"layer{name}")(F.relu(x)), getattr(self, f"layer{name}_")(F.relu(x_))
            alone = x
            x = x + getattr(self, f"down{name}")(F.relu(x_))
            x_ = x_ + up(getattr(self, f"compression{name}")(F.relu(alone)))
        extra = x_
        x, x_ = self.layer4(F.relu(x)), self.layer4_(F.relu(x_))
        alone = x
        x = x + self.down4(F.relu(x_))
        x_ = x_ + up(self.compression4(F.relu(alone)))
        x_ = self.layer5_(F.relu(x_))
        x = up(self.spp(self.layer5(F.relu(x))))
        return self.final_layer(x + x_), self.seghead_extra(extra)
