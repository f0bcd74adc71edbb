"""Test files: random content, awkward names, and the comparison of two trees."""

import hashlib
import os
from pathlib import Path

MIB = 1024 * 1024


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(MIB):
            digest.update(block)
    return digest.hexdigest()


def tree_sums(root):
    """{relative path: sha256}; a folder without entries shows as 'empty folder', a link as its target."""
    root, sums = Path(root), {}
    for folder, folders, files in os.walk(root):
        for name in files:
            path = Path(folder) / name
            sums[str(path.relative_to(root))] = os.readlink(path) if path.is_symlink() else sha256(path)
        if not folders and not files and Path(folder) != root:
            sums[str(Path(folder).relative_to(root))] = "empty folder"
    return sums


def random_file(path, size):
    """A file of random bytes; a large one repeats one random block, numbered, so that it is quick to make."""
    block = os.urandom(min(size, MIB))
    with open(path, "wb") as f:
        for number in range(-(-size // MIB)):
            piece = number.to_bytes(8, "big") + block[8:]
            f.write(piece[:min(MIB, size - number * MIB)])


NAMES = ["plain.txt", "with space.txt", " leading space.txt", "percent%20.txt", "100%.txt", "plus+sign.txt", "hash#tag.txt",
         "ünïcödé-漢字-🙂.txt", "decomposed-e\u0301.txt", "amp&semi;.txt", "quote'single.txt", 'quote"double.txt',
         "question?.txt", "brackets[1]{2}(3).txt", "less<more>.txt", "equals=comma,.txt", "tilde~at@colon:.txt", "star*.txt",
         "caret^pipe|.txt", ".hidden", "n" * 200 + ".txt"]


def odd_tree(root, names=NAMES):
    """A tree of awkward names, empty files, an empty folder and one larger file."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}\n" * 3)
    deep = root / "folder with space" / "sub#1 100%" / "dëëp+er"
    deep.mkdir(parents=True)
    (deep / "file.txt").write_text("deep\n")
    (deep / "empty.bin").touch()
    (root / "empty file").touch()
    (root / "empty folder").mkdir()
    random_file(root / "large.bin", 5 * MIB + 123)
    return tree_sums(root)


def change_tree(root):
    """The changes of a working day: one file changed, one removed, one added, one moved."""
    (root / "plain.txt").write_text("changed, and longer than before\n" * 9)
    (root / "100%.txt").unlink()
    (root / "new + added.txt").write_text("new\n")
    (root / "hash#tag.txt").rename(root / "folder with space" / "moved#tag.txt")
    return tree_sums(root)
