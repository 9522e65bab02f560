"""The 20 ImageNet pictures inside foolbox: too few to measure by, enough to see what breaks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from experiments.pretrained import weights
from morph.errors import need

try:
    from PIL import Image
except ModuleNotFoundError as error:
    need("reading pictures", error, "pretrained")

PACKAGE = weights.Package(
    name="foolbox",
    version="3.3.4",
    folder="foolbox/data",
    files={
        "imagenet_00_243.jpg": "28b7b933c8028c6e20bf74a86a709eda42ce99f14c8742cb657cb386f08a4c9d",
        "imagenet_01_559.jpg": "5f03b0c74dff01b5b4195d0beabcae2a625a406e6917957ab9c455b5b7dea6d6",
        "imagenet_02_438.jpg": "ccef0734c1a65549c6cb5adb0f5d9b1c0b2e2104aba50a9e5f9202dc6d4532ed",
        "imagenet_03_990.jpg": "c7f0b2f1e9ee39d8f900759e8983afa2e4a2d7de090060e8bb947f6e90cace5f",
        "imagenet_04_949.jpg": "a7f62f3c1d214de4718c7253871ab38209283249e131faf65b8f2b7fdc970669",
        "imagenet_05_853.jpg": "8a449436c61da867528b1f4efaf8ae832ab9c9201705eae0d3af1353fbdac131",
        "imagenet_06_609.jpg": "fb061102a4e58b3ed942bb2a4f9542e1e1acdc8f225ef95498e93889290e192f",
        "imagenet_07_609.jpg": "2c297ad1e5c4804a647e9b34bc02ee2fc348b05a4d49050d170fb61c948efa5c",
        "imagenet_08_915.jpg": "c6a3411a3987799f0de45adc142f00ca412c3e14073c635e2adfae1f3913180c",
        "imagenet_09_455.jpg": "ace3716b60ac5843269b270e17020e4f8138440cd30ef3487f7d6e54da9745a4",
        "imagenet_10_541.jpg": "f325c71d9f4290ee45e99bd7ad42f4bffe513b1450ad21e7bd61c7cb137395d9",
        "imagenet_11_630.jpg": "892dff58fc528fe63d2df0c783aa3eca2342637798578ce01763fbc0553eda01",
        "imagenet_12_741.jpg": "6c256e17545b25bbf2e06cf6513ff48d049583569515ac4d4c3a52aea804a529",
        "imagenet_13_471.jpg": "52ed0e738b90d27afcabc3e92c81ae637f160c2d9f75b93a65211005ab5dcd81",
        "imagenet_14_129.jpg": "ad9371d813bf24b0365ee2f78f28c08718ee7c5975f060caa16c3f264e828139",
        "imagenet_15_99.jpg": "4b588649cd835d4c65521727ebee03d9621baff1f54d3e8a53a26b53d983ec2e",
        "imagenet_16_251.jpg": "ce3440a3b7beb6ca3009817504c44d39fa789e7c2f70a2eef7e2f9cc9a87b129",
        "imagenet_17_22.jpg": "b432341845620e9cfd67d848c4783c32dd6eaddad45513866b17180d2b09fcf5",
        "imagenet_18_317.jpg": "b9412f92f0b1c3faede45b55a44940977daa744f2040118d0538cf597fca785d",
        "imagenet_19_305.jpg": "e1f58f00e2e47ce930d7ecab0e46a78316054f68c10d0742e87c1cc092324556",
    },
)
# Of ImageNet's pixels scaled to [0, 1], R, G, B: what torchvision's networks are trained with.
MEAN = np.asarray((0.485, 0.456, 0.406), np.float32)
STD = np.asarray((0.229, 0.224, 0.225), np.float32)


class Pictures(NamedTuple):
    """Labelled pictures.

    Attributes:
        images: float32 [20, size, size, 3], standardised with `MEAN` and `STD`.
        labels: int32 [20], in [0, 1000).
    """

    images: np.ndarray
    labels: np.ndarray


def load(data_dir: str | None = None, *, size: int = 224) -> Pictures:
    """Loads the pictures, each as a whole, resized (bicubic) without regard to its aspect.

    Args:
        data_dir: folder to look in first, see `weights.find`.
        size: height and width that they are resized to.

    Raises:
        WeightsNotFoundError: if the files are nowhere; the message says how to install them.
        WeightsError: if a file is another.

    Example:
        >>> load(size=160).images.shape
        (20, 160, 160, 3)
    """
    paths = weights.find(PACKAGE, data_dir)
    pixels = []
    for path in paths.values():
        with Image.open(path) as picture:
            resized = picture.resize((size, size), Image.Resampling.BICUBIC)
            pixels.append(np.asarray(resized, np.float32) / 255)  # [H, W, 3]
    images = (np.stack(pixels) - MEAN) / STD
    # The name ends in the class: imagenet_00_243.jpg.
    labels = [int(file.removesuffix(".jpg").split("_")[-1]) for file in paths]
    return Pictures(images=images, labels=np.asarray(labels, np.int32))
