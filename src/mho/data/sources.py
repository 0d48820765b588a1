"""Where the data sets come from: addresses, checksums, counts, classes and the statistics of their pixels.

Checksums of MNIST, Fashion-MNIST, CIFAR-10 and the Tiny ImageNet archive are those that their authors publish or that
torchvision and others list; the SHA-256 of unpacked MNIST was computed from files whose published checksums held. The
subset of Tiny ImageNet (150 train images a class) is the archive that this project's benchmarks use.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class FileSum:
    """A file's name and its digest, "algorithm:hexadecimal"."""

    name: str
    digest: str


@dataclass(frozen=True)
class Source:
    """One data set: what to look for, what to download, and what must hold afterwards.

    ``folder`` is where the files lie below a data folder; ``files`` are the ones to download from ``base_url``;
    ``members`` are other files that are known with their checksums (unpacked, repacked, or inside an archive).
    ``mean`` and ``std`` are of the train pixels / 255, one a channel.
    """

    base_url: str
    folder: str
    files: tuple[FileSum, ...]
    train: int
    test: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...] = ()
    members: tuple[FileSum, ...] = ()

    def digest_of(self, name: str) -> str | None:
        """The digest of the file ``name``, or None when no checksum of it is known."""
        return next((known.digest for known in self.files + self.members if known.name == name), None)


_MNIST = Source(
    base_url="https://ossci-datasets.s3.amazonaws.com/mnist/",
    folder="MNIST/raw",
    files=(
        FileSum("train-images-idx3-ubyte.gz", "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        FileSum("train-labels-idx1-ubyte.gz", "md5:d53e105ee54ea40749a09fcbcd1e9432"),
        FileSum("t10k-images-idx3-ubyte.gz", "md5:9fb629c4189551a2d022fa330f9573f3"),
        FileSum("t10k-labels-idx1-ubyte.gz", "md5:ec29112dd5afa0611ce80d1b7f02629c"),
    ),
    members=(
        FileSum("train-images-idx3-ubyte", "sha256:ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
        FileSum("train-labels-idx1-ubyte", "sha256:65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
        FileSum("t10k-images-idx3-ubyte", "sha256:0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
        FileSum("t10k-labels-idx1-ubyte", "sha256:ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
    ),
    train=60_000,
    test=10_000,
    mean=(0.1307,),
    std=(0.3081,),
    classes=tuple("0123456789"),
)

_FASHION = Source(
    base_url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    folder="FashionMNIST/raw",
    files=(
        FileSum("train-images-idx3-ubyte.gz", "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        FileSum("train-labels-idx1-ubyte.gz", "md5:25c81989df183df01b3e8a0aad5dffbe"),
        FileSum("t10k-images-idx3-ubyte.gz", "md5:bef4ecab320f06d8554ea6380940ec79"),
        FileSum("t10k-labels-idx1-ubyte.gz", "md5:bb300cfdad3c16e7a12a480ee83cd310"),
    ),
    train=60_000,
    test=10_000,
    mean=(0.2860,),
    std=(0.3530,),
    classes=(
        "T-shirt/top",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ),
)

_CIFAR10 = Source(
    base_url="https://www.cs.toronto.edu/~kriz/",
    folder=".",
    files=(FileSum("cifar-10-python.tar.gz", "md5:c58f30108f718f92721af3b95e74349a"),),
    members=(
        FileSum("data_batch_1", "md5:c99cafc152244af753f735de768cd75f"),
        FileSum("data_batch_2", "md5:d4bba439e000b95fd0a9bffe97cbabec"),
        FileSum("data_batch_3", "md5:54ebc095f3ab1f0389bbae665268c751"),
        FileSum("data_batch_4", "md5:634d18415352ddfa80567beed471001a"),
        FileSum("data_batch_5", "md5:482c414d41f54cd18b22e5b47cb7c3cb"),
        FileSum("test_batch", "md5:40351d587109b95175f43aff81a1287e"),
    ),
    train=50_000,
    test=10_000,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
)

# The names of the 200 classes come with the files (wnids.txt, words.txt). A subset has fewer train images.
_TINY_IMAGENET = Source(
    base_url="http://cs231n.stanford.edu/",
    folder=".",
    files=(FileSum("tiny-imagenet-200.zip", "md5:90528d7ca1a48142e341f4ef8d21d0de"),),
    members=(
        FileSum(
            "tiny-imagenet-200-subset.tar.xz", "sha256:6cad7b3f693ea8d687d9832ff7e338bc9a4188962fbf1984e5c087706d7cd59e"
        ),
    ),
    train=100_000,
    test=10_000,
    mean=(0.4802, 0.4481, 0.3975),
    std=(0.2764, 0.2689, 0.2816),
)

SOURCES: Mapping[str, Source] = MappingProxyType(
    {"mnist": _MNIST, "fashion-mnist": _FASHION, "cifar10": _CIFAR10, "tiny-imagenet": _TINY_IMAGENET}
)
