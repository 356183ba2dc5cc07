"""
The upload format: what the writer makes the reader takes, in pieces of any size, and nothing else.
"""

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from gateway.adapters.archive import ArchiveReader, ProfileNotes, archive, archive_size
from gateway.adapters.directory import AdapterFiles, find_adapter
from gateway.domain.errors import TailorError
from gateway.domain.registry_errors import UploadInvalid, UploadTooLarge
from tests.unit.adapters.handmade import lora_config, lora_tensors, prompt_config, prompt_tensors, write

NOTES = ProfileNotes(instruction="Answer briefly. Grüße", description="two adapters")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[AdapterFiles]:
    folder = tmp_path_factory.mktemp("archive")
    return [
        find_adapter(write(folder / "lora", lora_config(), lora_tensors())),
        find_adapter(write(folder / "table", prompt_config(), prompt_tensors())),
    ]


@pytest.fixture
def reader(out: Path) -> ArchiveReader:
    return ArchiveReader(out, 1 << 20)


def tar(*members: tuple[str | tarfile.TarInfo, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as made:
        for member, content in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            if info.isreg():
                info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def refusal(reader: ArchiveReader, content: bytes) -> TailorError:
    def send() -> None:
        reader.feed(content)
        reader.finish()

    with pytest.raises(TailorError) as caught:
        send()
    return caught.value


@pytest.mark.parametrize("piece", [1, 7, 511, 512, 513, 4096, 1 << 20])
def test_any_size_of_piece_gives_the_same_files(
    piece: int, files: list[AdapterFiles], reader: ArchiveReader, out: Path
) -> None:
    sent = b"".join(archive(files, NOTES))
    assert len(sent) == archive_size(files, NOTES)
    for start in range(0, len(sent), piece):
        reader.feed(sent[start : start + piece])
    upload = reader.finish()
    assert upload.notes == NOTES
    for got, given in zip(upload.adapters, files, strict=True):
        for received, original in ((got.config, given.config), (got.weights, given.weights)):
            content = original.read_bytes()
            assert received.path.read_bytes() == content
            assert received.bytes == len(content)
            assert received.sha256 == hashlib.sha256(content).hexdigest()
            assert received.path.parent == out


def test_what_we_write_is_a_tar_to_others(files: list[AdapterFiles]) -> None:
    with tarfile.open(fileobj=io.BytesIO(b"".join(archive(files, NOTES)))) as made:
        assert made.getnames() == [
            "profile.json",
            "0/adapter_config.json",
            "0/adapter_model.safetensors",
            "1/adapter_config.json",
            "1/adapter_model.safetensors",
        ]
        weights = made.extractfile("0/adapter_model.safetensors")
        assert weights is not None
        assert weights.read() == files[0].weights.read_bytes()


def test_a_tar_of_others_is_taken(reader: ArchiveReader) -> None:
    """GNU tar in ustar format writes the same headers; profile.json may be absent."""
    reader.feed(tar(("0/adapter_config.json", b"{}"), ("0/adapter_model.safetensors", b"x" * 1000)))
    upload = reader.finish()
    assert upload.notes == ProfileNotes()
    assert upload.bytes == 1002


def link(name: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = "/etc/passwd"
    return info


BAD = {
    "../../etc/passwd": tar(("../../etc/passwd", b"x")),
    "/etc/passwd": tar(("/etc/passwd", b"x")),
    "0/../1/adapter_config.json": tar(("0/../1/adapter_config.json", b"x")),
    "./0/adapter_config.json": tar(("./0/adapter_config.json", b"x")),
    "0\\adapter_config.json": tar(("0\\adapter_config.json", b"x")),
    "2/adapter_config.json": tar(("2/adapter_config.json", b"x")),
    "0/adapter_model.bin": tar(("0/adapter_model.bin", b"x")),
    "a name of 300 characters": tar(("0/" + "a" * 95 + "/" + "b" * 90, b"x")),
    "a symbolic link": tar((link("0/adapter_config.json", tarfile.SYMTYPE), b"")),
    "a hard link": tar((link("0/adapter_config.json", tarfile.LNKTYPE), b"")),
    "a device": tar((link("0/adapter_config.json", tarfile.CHRTYPE), b"")),
    "a pipe": tar((link("0/adapter_config.json", tarfile.FIFOTYPE), b"")),
    "a directory": tar((link("0", tarfile.DIRTYPE), b"")),
    "GNU's format": tar(("0/" + "a" * 200, b"x"), form=tarfile.GNU_FORMAT),
    "PAX headers": tar(("0/" + "ü" * 90, b"x"), form=tarfile.PAX_FORMAT),
    "one file twice": tar(("0/adapter_config.json", b"a"), ("0/adapter_config.json", b"b")),
    "gzip": b"\x1f\x8b\x08" + bytes(600),
    "zip": b"PK\x03\x04" + bytes(600),
    "no archive": b"<html>" + bytes(600),
    "zeros only": bytes(2048),
    "weights only": tar(("0/adapter_model.safetensors", b"x")),
    "the second adapter only": tar(("1/adapter_config.json", b"{}"), ("1/adapter_model.safetensors", b"x")),
    "a config of 2 MB": tar(("0/adapter_config.json", bytes(2 << 20))),
    "notes with an unknown key": tar(
        ("profile.json", b'{"owner": "me"}'), ("0/adapter_config.json", b"{}"), ("0/adapter_model.safetensors", b"x")
    ),
    "an instruction of 100 KB": tar(
        ("profile.json", b'{"instruction": "%b"}' % (b"x" * 100_000)),
        ("0/adapter_config.json", b"{}"),
        ("0/adapter_model.safetensors", b"x"),
    ),
    "the end is missing": tar(("0/adapter_config.json", b"{}"), ("0/adapter_model.safetensors", b"x" * 5000))[:3000],
}


@pytest.mark.parametrize("kind", BAD)
def test_anything_else_is_refused_and_nothing_is_written_outside(
    kind: str, reader: ArchiveReader, tmp_path: Path
) -> None:
    before = {path for path in tmp_path.rglob("*") if path.parent != tmp_path / "out"}
    error = refusal(reader, BAD[kind])
    assert isinstance(error, UploadInvalid | UploadTooLarge)
    reader.close()
    assert {path for path in tmp_path.rglob("*") if path.parent != tmp_path / "out"} == before


def test_compression_is_named(out: Path) -> None:
    assert "is gzip; send a plain tar" in refusal(ArchiveReader(out, 1 << 20), BAD["gzip"]).message


def test_a_wrong_checksum_is_refused(reader: ArchiveReader) -> None:
    content = bytearray(BAD["weights only"])
    content[120] ^= 1
    content[124] = ord("1")
    assert "checksum" in refusal(reader, bytes(content)).message


def test_the_limit_holds_on_both_sides(files: list[AdapterFiles], tmp_path: Path) -> None:
    sent = b"".join(archive(files, NOTES))
    for limit, fits in ((len(sent), True), (len(sent) - 1, False)):
        folder = tmp_path / str(limit)
        folder.mkdir()
        reader = ArchiveReader(folder, limit)
        if fits:
            reader.feed(sent)
            assert len(reader.finish().adapters) == 2
        else:
            assert isinstance(refusal(reader, sent), UploadTooLarge)


def test_bytes_after_the_end_are_dropped_but_counted(files: list[AdapterFiles], out: Path) -> None:
    sent = b"".join(archive(files, NOTES))
    reader = ArchiveReader(out, len(sent) + 1000)
    reader.feed(sent + b"x" * 1000)
    assert len(reader.finish().adapters) == 2
    with pytest.raises(UploadTooLarge):
        reader.feed(b"x")
