#!/usr/bin/env python3
"""Makes fuzz/seeds: small valid inputs, from which the fuzzers start.

They come from tests/fixtures/pixels and from independent encoders. Run it in a throw-away environment
when a target or a fixture is added; the result is committed:

    python3 -m venv env && env/bin/pip install pydicom numpy imagecodecs
    env/bin/python scripts/fuzz_seeds.py

The five bytes in front of a code stream are the `Shape` of fuzz/src/lib.rs.
"""

import pathlib
import struct
import zlib

import imagecodecs
import numpy as np
import pydicom
from pydicom.encaps import generate_fragments
from pydicom.pixels import get_encoder
from pydicom.uid import RLELossless

ROOT = pathlib.Path(__file__).parent.parent
FIXTURES = ROOT / "tests/fixtures/pixels"
OUT = ROOT / "fuzz/seeds"
RNG = np.random.default_rng(20240229)
PHOTOMETRIC = [
    "MONOCHROME2", "MONOCHROME1", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422",
    "YBR_PARTIAL_420", "YBR_PARTIAL_422", "YBR_ICT", "YBR_RCT", "XYB",
]  # fmt: skip
# The order in the targets' lists.
CHOICES = {
    "jpeg": ["50", "51", "53", "55", "57", "70"],
    "jpegls": ["80", "81"],
    "jpeg2000": ["90", "91", "92", "93", "201", "202", "203"],
    "jpegxl": ["110", "111", "112"],
}
ENCAPSULATED = ["1.98", "5", "8.1", "4.50", "4.80", "4.90", "4.110", "1"]


def save(target, name, data):
    folder = OUT / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def shape(rows, columns, allocated, stored, photometric="MONOCHROME2", signed=0, planar=0, choice=0):
    bits = [8, 16, 32, 1].index(allocated) | (stored - 1) << 2
    flags = PHOTOMETRIC.index(photometric) | signed << 4 | planar << 5
    return bytes([rows, columns, bits, flags, choice])


def shape_of(ds, choice):
    return shape(
        ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.PhotometricInterpretation,
        ds.PixelRepresentation, ds.get("PlanarConfiguration", 0), choice,
    )  # fmt: skip


def encapsulate(name, tail, head, fragments, frames):
    """With an empty offset table, with a true one, and with each fragment cut in two."""
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    head = head[:4] + bytes([ENCAPSULATED.index(tail) | frames - 1 << 3])
    whole = [item(f) for f in fragments]
    halves = [item(f[: len(f) // 4 * 2]) + item(f[len(f) // 4 * 2 :]) for f in fragments]

    def table(items):
        return item(b"".join(struct.pack("<I", sum(map(len, items[:i]))) for i in range(len(items))))

    for suffix, first, rest in (("", item(b""), whole), ("_table", table(whole), whole), ("_halves", table(halves), halves)):
        save("encapsulated", name + suffix, head + first + b"".join(rest) + end)


def item(data):
    data += b"\0" * (len(data) % 2)
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(data)) + data


def fixtures():
    for path in sorted(FIXTURES.glob("*.dcm")):
        ds = pydicom.dcmread(path)
        if path.stat().st_size < 3000:
            save("data_set", path.stem, b"\x15" + path.read_bytes())
        syntax = ds.file_meta.TransferSyntaxUID
        if not syntax.is_encapsulated or path.stat().st_size > 6000:
            continue
        tail = syntax.removeprefix("1.2.840.10008.1.2.")
        frames = int(ds.get("NumberOfFrames", 1))
        # The offset table is no fragment here.
        fragments = list(generate_fragments(ds.PixelData))[-frames:]
        if tail == "5":
            save("rle", path.stem, shape_of(ds, 0) + fragments[0])
            continue
        target = next(t for t, choices in CHOICES.items() if tail.removeprefix("4.") in choices)
        head = shape_of(ds, CHOICES[target].index(tail.removeprefix("4.")))
        save(target, path.stem, head + fragments[0])
        if frames > 1:
            encapsulate(path.stem, tail, head, fragments, frames)


def scene(maximum, shape=(12, 16)):
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    value = 0.5 + 0.3 * np.sin(x / 3.0) * np.cos(y / 2.0) + 0.2 * (x > 8)
    return np.clip(np.round(value * maximum + RNG.normal(0, maximum / 60, shape)), 0, maximum)


def streams():
    u8, u12 = scene(255).astype("u1"), scene(4095).astype("u2")
    u16 = scene(65535).astype("u2")
    rgb = np.ascontiguousarray(np.stack([u8, u8[::-1], 255 - u8], -1))
    grey8, grey12, grey16, colour = (
        shape(12, 16, 8, 8), shape(12, 16, 16, 12), shape(12, 16, 16, 16), shape(12, 16, 8, 8, "RGB"),
    )  # fmt: skip

    def choose(head, choice):
        return head[:4] + bytes([choice])

    def jpeg(name, image, head, choice, **options):
        save("jpeg", name, choose(head, choice) + imagecodecs.jpeg8_encode(image, **options))

    jpeg("baseline", u8, grey8, 0, level=90)
    jpeg("baseline_rgb", rgb, colour, 0, level=90, outcolorspace="RGB", colorspace="RGB")
    jpeg("extended_12", u12, grey12, 1, level=90, bitspersample=12)
    jpeg("lossless_8", u8, grey8, 4, lossless=True)
    jpeg("lossless_12", u12, grey12, 5, lossless=True, bitspersample=12)
    jpeg("lossless_16", u16, grey16, 5, lossless=True, bitspersample=16)
    jpeg("lossless_rgb", rgb, colour, 5, lossless=True, outcolorspace="RGB", colorspace="RGB")

    save("jpegls", "grey_8", choose(grey8, 0) + imagecodecs.jpegls_encode(u8))
    save("jpegls", "grey_16", choose(grey16, 0) + imagecodecs.jpegls_encode(u16))
    save("jpegls", "near", choose(grey8, 1) + imagecodecs.jpegls_encode(u8, level=2))
    save("jpegls", "rgb", choose(colour, 0) + imagecodecs.jpegls_encode(rgb))

    for name, image, head in (("grey_8", u8, grey8), ("grey_16", u16, grey16), ("rgb", rgb, colour)):
        save("jpeg2000", f"htj2k_{name}", choose(head, 4) + imagecodecs.htj2k_encode(image, reversible=True))
        save("jpeg2000", f"j2k_{name}", choose(head, 0) + imagecodecs.jpeg2k_encode(image, codecformat="j2k", reversible=True, resolutions=2))
        save("jpeg2000", f"jp2_{name}", choose(head, 1) + imagecodecs.jpeg2k_encode(image, codecformat="jp2", level=40, resolutions=2))
        encapsulate(f"jpegls_{name}", "4.80", head, [imagecodecs.jpegls_encode(image)] * 2, 2)
        save("jpegxl", name, choose(head, 0) + imagecodecs.jpegxl_encode(image, lossless=True, usecontainer=False))
        save("jpegxl", f"{name}_lossy", choose(head, 2) + imagecodecs.jpegxl_encode(image, distance=1.0, usecontainer=False))
    save("jpegxl", "container", choose(grey8, 0) + imagecodecs.jpegxl_encode(u8, lossless=True, usecontainer=True))

    encapsulate("j2k", "4.90", grey8, [imagecodecs.jpeg2k_encode(u8, codecformat="j2k", reversible=True, resolutions=2)] * 3, 3)
    encapsulate("jxl", "4.110", colour, [imagecodecs.jpegxl_encode(rgb, lossless=True, usecontainer=False)], 1)

    for name, image, head in (("grey_8", u8, grey8), ("grey_16", u16, grey16), ("rgb", rgb, colour)):
        raw = image.tobytes()
        samples = 3 if name == "rgb" else 1
        packed = get_encoder(RLELossless).encode(
            image, rows=12, columns=16, samples_per_pixel=samples, bits_allocated=image.itemsize * 8,
            bits_stored=image.itemsize * 8, pixel_representation=0, number_of_frames=1,
            photometric_interpretation="RGB" if name == "rgb" else "MONOCHROME2", planar_configuration=0,
            encoding_plugin="pydicom",
        )  # fmt: skip
        save("rle", name, choose(head, 0) + packed)
        encapsulate(f"rle_{name}", "5", head, [packed] * 2, 2)
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        save("deflate", name, choose(head, 0) + packer.compress(raw) + packer.flush())
        save("deflate", f"{name}_raw", choose(head, 1) + raw)
    for path in sorted(FIXTURES.glob("native_u8*.dcm")) + [FIXTURES / "deflated_data_set.dcm"]:
        ds = pydicom.dcmread(path)
        data = path.read_bytes()
        start = 132 + 12 + ds.file_meta.FileMetaInformationGroupLength
        deflated = ds.file_meta.TransferSyntaxUID.is_deflated
        save("deflate", f"data_set_{path.stem}", choose(grey8, 2 if deflated else 3) + data[start:])


def native_frames():
    head = shape(3, 5, 8, 8, choice=ENCAPSULATED.index("1.98") | 1 << 3)
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    save("encapsulated", "native", head + item(b"") + item(bytes(range(15))) * 2 + end)


def requests():
    """P-DATA-TF PDUs (PS3.8 9.3.5) in pieces, a release, and a C-ECHO request's command set."""

    def element(number, value):
        value += b"\0" * (len(value) % 2)
        return struct.pack("<HHI", 0, number, len(value)) + value

    us = lambda value: struct.pack("<H", value)  # noqa: E731
    command = (
        element(0x0002, b"1.2.840.10008.1.1") + element(0x0100, us(0x0030))
        + element(0x0110, us(7)) + element(0x0800, us(0x0101))
    )  # fmt: skip
    command = element(0x0000, struct.pack("<I", len(command))) + command
    response = command + element(0x0900, us(0xC000)) + element(0x0902, b"no")
    save("command", "request", command)
    save("command", "response", response)

    def pdv(data, control, context=1):
        return struct.pack(">IBB", len(data) + 2, context, control) + data

    def pdata(*pdvs):
        body = b"".join(pdvs)
        return struct.pack(">BBI", 4, 0, len(body)) + body

    release = struct.pack(">BBII", 5, 0, 4, 0)
    abort = struct.pack(">BBI4B", 7, 0, 4, 0, 0, 0, 0)
    many = pdata(pdv(command, 3)) + pdata(pdv(b"x" * 1500, 0), pdv(b"", 0)) + pdata(pdv(b"y" * 30, 2, 2))
    save("pdu", "messages", b"\x0c" + many + release)
    save("pdu", "aborted", b"\xfe" + many + abort)
    save("pdu", "too_long", b"\x00" + struct.pack(">BBI", 4, 0, 1 << 30) + b"z" * 40)
    associations(pdata, pdv, command, release, abort)


def associations(pdata, pdv, echo, release, abort):
    """Byte streams (choice 0) and steps (choice 1) for the association target, each with a pace."""

    def subitem(kind, *parts):
        body = b"".join(parts)
        return struct.pack(">BBH", kind, 0, len(body)) + body

    def counted(text):
        return struct.pack(">H", len(text)) + text

    ct = b"1.2.840.10008.5.1.4.1.1.2"
    context = subitem(0x20, b"\x01\0\0\0", subitem(0x30, ct), subitem(0x40, b"1.2.840.10008.1.2.1"))
    user = subitem(
        0x50,
        subitem(0x51, struct.pack(">I", 16384)),
        subitem(0x52, b"2.25.1"),
        subitem(0x53, struct.pack(">HH", 0, 1)),
        subitem(0x54, counted(ct), b"\1\1"),
        subitem(0x55, b"SEED"),
        subitem(0x56, counted(ct), bytes([2, 0, 0, 0, 0, 0])),
        subitem(0x57, counted(b"1.2.3"), counted(b"1.2.840.10008.4.2"), counted(b"")),
        subitem(0x58, b"\2\1", counted(b"somebody"), counted(b"secret")),
    )
    fixed = struct.pack(">HH16s16s32x", 1, 0, b"PACSGATEWAY".ljust(16), b"CT1".ljust(16))
    body = fixed + subitem(0x10, b"1.2.840.10008.3.1.1.1") + context + user
    request = struct.pack(">BBI", 1, 0, len(body)) + body
    for name, stream in {
        "echo": request + pdata(pdv(echo, 3)) + release,
        "aborted": request + pdata(pdv(echo[:20], 1)) + abort,
        "after_release": request + release + pdata(pdv(echo, 3)) + request,
        "release_first": release + request,
        "web": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    }.items():
        save("association", name, b"\x00\xff" + stream)
    # Three bytes each: what, on which context and how, Message ID or size of the fragments.
    for name, steps in {
        "store": [(2, 1, 1), (3, 1, 0), (4, 0, 0)],
        "pieces": [(2, 0x11, 1), (3, 1, 3), (2, 0x31, 2), (3, 1, 5), (4, 0, 0)],
        "together": [(12, 1, 1), (12, 1, 2), (4, 0, 0)],
        "cut": [(2, 1, 1), (3, 9, 40)],
        "services": [(1, 0, 1), (8, 2, 0), (3, 2, 0), (8, 3, 1), (3, 3, 0), (8, 3, 2), (3, 3, 0), (4, 0, 0)],
        "refused": [(7, 1, 0), (7, 1, 1), (7, 9, 5), (3, 1, 0), (2, 0, 9), (3, 0, 0), (4, 0, 0)],
        "again": [(2, 1, 1), (6, 0, 0), (4, 0, 0), (13, 4, 9)],
    }.items():
        save("association", name, b"\x11\xff" + bytes(sum(steps, ())))
        save("association", f"{name}_slowly", b"\x1b\x06" + bytes(sum(steps, ())))


def choices():
    """The renderer's inputs are choices; random ones are as good as any."""
    for index in range(40):
        save("renderer", f"{index:02}", RNG.integers(0, 256, 300 + 20 * index, dtype="u1").tobytes())


if __name__ == "__main__":
    fixtures()
    streams()
    native_frames()
    requests()
    choices()
    print(sum(path.stat().st_size for path in OUT.rglob("*") if path.is_file()), "bytes")
