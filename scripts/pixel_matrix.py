#!/usr/bin/env python3
"""Makes the matrix that tests/pixel_matrix.rs decodes: transfer syntax x photometric interpretation x bits x sign x frames.

    .deps/venv/bin/python scripts/pixel_matrix.py FOLDER

One small instance per cell, written by other people's encoders: DCMTK (dcmconv, dcmcrle, dcmcjpeg, dcmcjpls), pydicom
(RLE), and imagecodecs (libjpeg-turbo, CharLS, OpenJPEG, OpenJPH, libjxl). FOLDER/index.json says what each must decode to:

- `sha256`, `dtype`, `photometric`: exact. Lossless cells are the array that went in; lossy ones are what an independent
  decoder made of the stream (DCMTK's own libjpeg for DCT, CharLS for near-lossless, OpenJPEG for wavelets).
- `expected`, `max`, `mean`: a raw array and how far from it values may lie, where two decoders legitimately differ.
- `refused`: the code, where there is no one right answer.
- `either`: a refusal is right too, for what may have lost nothing but padding.
- `shown`: "as RGB", or the code with which conversion to RGB is refused although the stored values are known.

Cells of the matrix have a `column`, the odd but legal data of `odd()` has a `title` instead.
"""

import hashlib
import json
import pathlib
import shutil
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import imagecodecs
import numpy as np
import pydicom
import pydicom.encaps
from pydicom.pixels.encoders.native import _encode_segment

OUT = pathlib.Path(sys.argv[1])
RNG = np.random.default_rng(20261121)
ROWS, COLUMNS = 21, 27

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
ENCAPSULATED = "1.2.840.10008.1.2.1.98"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG = "1.2.840.10008.1.2.2"
GE = "1.2.840.113619.5.2"
RLE = "1.2.840.10008.1.2.5"
DEFLATED_FRAME = "1.2.840.10008.1.2.8.1"
JPEG = "1.2.840.10008.1.2.4."
NATIVE = (IMPLICIT, EXPLICIT, DEFLATED, BIG, GE)

INDEX = []
# Encoders of DCMTK are processes of their own: they run in the background, two at a time.
POOL = ThreadPoolExecutor(2)
PENDING = []

# --- a minimal writer of data sets: exactly these bytes, nothing corrected -------------------------------------------------

LONG = {"OB", "OW", "OF", "OD", "OV", "SQ", "UN", "UT"}


def element(group, number, vr, value, implicit=False, length=None):
    if isinstance(value, str):
        value = value.encode() + (b"" if len(value) % 2 == 0 else b"\0" if vr == "UI" else b" ")
    elif isinstance(value, int):
        value = struct.pack("<H", value)
    length = len(value) if length is None else length
    head = struct.pack("<HH", group, number)
    if implicit:
        return head + struct.pack("<I", length) + value
    if vr in LONG:
        return head + vr.encode() + b"\0\0" + struct.pack("<I", length) + value
    return head + vr.encode() + struct.pack("<H", length) + value


def item(value):
    return b"\xfe\xff\x00\xe0" + struct.pack("<I", len(value)) + value


def even(value):
    return value + b"\0" * (len(value) % 2)


def fragments(parts, table=b""):
    """The value of encapsulated pixel data."""
    return item(table) + b"".join(item(part) for part in parts) + b"\xfe\xff\xdd\xe0\0\0\0\0"


def offsets(frames):
    """A basic offset table for frames that are lists of fragments."""
    out, at = [], 0
    for parts in frames:
        out.append(at)
        at += sum(len(part) + 8 for part in parts)
    return struct.pack(f"<{len(out)}I", *out)


class Attributes:
    """What the Image Pixel module says."""

    def __init__(self, alloc=8, stored=None, signed=0, photometric="MONOCHROME2", frames=1, planar=0, rows=ROWS, columns=COLUMNS,
                 high=None, kind="integer", extra=()):
        self.alloc, self.stored, self.signed, self.frames = alloc, stored or alloc, signed, frames
        self.photometric, self.planar, self.rows, self.columns = photometric, planar, rows, columns
        self.high = self.stored - 1 if high is None else high
        self.kind, self.extra = kind, tuple(extra)

    @property
    def samples(self):
        return 1 if self.photometric[:4] in ("MONO", "PALE") else 3

    def but(self, **change):
        copy = Attributes.__new__(Attributes)
        copy.__dict__.update(self.__dict__)
        copy.__dict__.update(change)
        return copy


def instance(syntax, about, pixels, vr=None, frames_text=None, odd=False, native=None):
    """A Part 10 file in explicit or implicit VR little endian; `pixels` is the value as it stands in the file."""
    uid = f"1.2.826.0.1.3680043.10.1465.8.{len(INDEX)}.{len(PENDING)}.{RNG.integers(1 << 40)}"
    meta = b"".join((
        element(2, 1, "OB", b"\0\1"),
        element(2, 2, "UI", "1.2.840.10008.5.1.4.1.1.7"),
        element(2, 3, "UI", uid),
        element(2, 0x10, "UI", syntax),
        element(2, 0x12, "UI", "1.2.826.0.1.3680043.10.1465"),
    ))
    implicit = syntax in (IMPLICIT, GE)
    elements = [
        (8, 0x16, "UI", "1.2.840.10008.5.1.4.1.1.7"),
        (8, 0x18, "UI", uid),
        (8, 0x60, "CS", "OT"),
        (0x10, 0x20, "LO", "MATRIX"),
        (0x20, 0xD, "UI", "1.2.826.0.1.3680043.10.1465.8"),
        (0x20, 0xE, "UI", "1.2.826.0.1.3680043.10.1465.9"),
        (0x28, 2, "US", about.samples),
        (0x28, 4, "CS", about.photometric),
    ]
    if about.samples > 1:
        elements.append((0x28, 6, "US", about.planar))
    if about.frames > 1 or frames_text is not None:
        elements.append((0x28, 8, "IS", str(about.frames) if frames_text is None else frames_text))
    elements += [(0x28, 0x10, "US", about.rows), (0x28, 0x11, "US", about.columns), (0x28, 0x100, "US", about.alloc)]
    if about.kind == "integer":
        elements += [(0x28, 0x101, "US", about.stored), (0x28, 0x102, "US", about.high), (0x28, 0x103, "US", about.signed)]
    if about.photometric == "PALETTE COLOR":
        for i in range(3):
            elements.append((0x28, 0x1101 + i, "US", struct.pack("<HHH", 256, 0, 16)))
        for i in range(3):
            elements.append((0x28, 0x1201 + i, "OW", (np.arange(256) * 200 + i).astype("<u2").tobytes()))
    elements += about.extra
    body = b"".join(element(*e, implicit=implicit) for e in sorted(elements, key=lambda e: e[:2]))
    if (syntax in NATIVE) if native is None else native:
        number = {"integer": 0x10, "float": 8, "double": 9}[about.kind]
        vr = vr or {"integer": "OB" if about.alloc == 8 else "OW", "float": "OF", "double": "OD"}[about.kind]
        body += element(0x7FE0, number, vr, pixels if odd else even(pixels), implicit=implicit)
    else:
        body += element(0x7FE0, 0x10, vr or "OB", pixels, length=0xFFFFFFFF)
    return b"\0" * 128 + b"DICM" + element(2, 0, "UL", struct.pack("<I", len(meta))) + meta + body


# --- what goes in ---------------------------------------------------------------------------------------------------------


def scene(about, margin=0.0):
    """Frames x rows x columns (x samples) of values that use the whole range: waves, an edge and noise."""
    low = -(1 << about.stored - 1) if about.signed else 0
    high = low + (1 << about.stored) - 1
    shape = (about.frames, about.rows, about.columns) + ((3,) if about.samples == 3 else ())
    z, y, x, *c = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    channel = c[0] if c else 0
    value = 0.5 + 0.3 * np.sin(x / 4 + z + channel) * np.cos(y / 5 - channel) + 0.2 * (x > about.columns // 2)
    value = np.clip(value + RNG.normal(0, 0.02, shape), 0, 1)
    value.flat[0], value.flat[-1] = 0.0, 1.0
    value = margin + value * (1 - 2 * margin)
    return np.round(low + value * (high - low)).astype(np.int64)


def container(about):
    if about.kind != "integer":
        return np.dtype("<f4" if about.kind == "float" else "<f8")
    return np.dtype(f"<{'i' if about.signed else 'u'}{max(about.alloc // 8, 1)}")


def packed(values, about):
    """One frame, or all, as native little endian bytes, before padding."""
    if about.alloc == 1:
        return np.packbits(values.astype("u1").ravel(), bitorder="little").tobytes()
    if about.planar:
        values = np.moveaxis(values, -1, -3)
    return values.astype(container(about)).tobytes()


# --- what must come out -----------------------------------------------------------------------------------------------------


def outcome(about):
    return {"YBR_RCT": "RGB", "YBR_ICT": "RGB", "YBR_FULL_422": "YBR_FULL", "XYB": "RGB"}.get(about.photometric, about.photometric)


def keep(syntax, file, about, values=None, column=None, title=None, note="", photometric=None, near=None, refused=None):
    """Writes a file and its line of the index. `near` is (largest, mean) difference where not exact."""
    name = f"{len(INDEX):04}"
    (OUT / f"{name}.dcm").write_bytes(file)
    line = {"file": f"{name}.dcm", "syntax": syntax, "note": note, "frames": about.frames}
    line |= {"title": title} if title else {"column": column}
    if refused:
        line["refused"] = refused
    else:
        values = np.ascontiguousarray(values).astype(container(about))
        line |= {"dtype": values.dtype.name, "photometric": photometric or outcome(about)}
        if near:
            (OUT / f"{name}.raw").write_bytes(values.tobytes())
            line |= {"expected": f"{name}.raw", "max": near[0], "mean": near[1]}
        else:
            line["sha256"] = hashlib.sha256(values.tobytes()).hexdigest()
    INDEX.append(line)


def column(about):
    if about.kind != "integer":
        return "float"
    if about.photometric == "MONOCHROME2":
        return f"{about.alloc}{' signed' if about.signed else ''}"
    if about.photometric in ("RGB", "PALETTE COLOR"):
        return f"{about.photometric.split()[0]} {about.alloc}"
    return about.photometric


def describe(about, how):
    sign = "signed" if about.signed else "unsigned"
    return f"{about.photometric} {about.stored}/{about.alloc} {sign}, {about.frames} frames, planar {about.planar}, {how}"


def cell(syntax, about, frames, values, how, **kw):
    """An encapsulated cell: one fragment per frame."""
    file = instance(syntax, about, fragments([even(bytes(frame)) for frame in frames]))
    keep(syntax, file, about, values, column(about), note=describe(about, how), **kw)


def run(*command):
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def by_dcmtk(syntax, about, source, values, *command, decoded=False):
    """A cell that a program of DCMTK writes from the file `source`; with `decoded`, dcmdjpeg says what is in it."""

    def work():
        target = source.with_suffix(f".{abs(hash((syntax, command)))}.tmp")
        try:
            run(*command, source, target)
        except subprocess.CalledProcessError as err:
            return None, None, err.stderr.decode(errors="replace")
        truth = None
        if decoded:
            plain = target.with_suffix(".plain")
            run("dcmdjpeg", "+cn", "+px", target, plain)
            truth = pixels_of(plain)
        return target.read_bytes(), truth, None

    PENDING.append((POOL.submit(work), syntax, about, values, " ".join(map(str, command)), None))


def pixels_of(path):
    """Pixel data of a native file by pydicom's reader, as DCMTK wrote it."""
    ds = pydicom.dcmread(path)
    kind = "i" if ds.PixelRepresentation else "u"
    array = np.frombuffer(ds.PixelData, f"<{kind}{ds.BitsAllocated // 8}")
    shape = (int(ds.get("NumberOfFrames", 1)), ds.Rows, ds.Columns) + ((3,) if ds.SamplesPerPixel == 3 else ())
    return array[: int(np.prod(shape))].reshape(shape)


def collect():
    """Takes the cells that DCMTK has written, in the order they were asked for."""
    for future, syntax, about, values, how, near in PENDING:
        file, truth, err = future.result()
        if file is None:
            sys.exit(f"{how} failed on {describe(about, '')}: {err}")
        keep(syntax, file, about, values if truth is None else truth, column(about), note=describe(about, how), near=near)
    PENDING.clear()


# --- the matrix -----------------------------------------------------------------------------------------------------------


def bases():
    """Every kind of pixel that native data can hold."""
    for frames in (1, 3):
        for alloc, stored in ((1, (1,)), (8, (8, 7, 5, 2)), (16, (16, 15, 14, 13, 12, 11, 10, 9, 8, 6)), (32, (32, 24, 17))):
            for bits in stored:
                yield Attributes(alloc, bits, frames=frames)
        for alloc, stored in ((8, (8, 6)), (16, (16, 13, 12, 10)), (32, (32, 20))):
            for bits in stored:
                yield Attributes(alloc, bits, 1, frames=frames)
        yield Attributes(32, kind="float", frames=frames)
        yield Attributes(64, kind="double", frames=frames)
        for alloc, stored, signed in ((8, 8, 0), (16, 12, 0), (16, 16, 1)):
            yield Attributes(alloc, stored, signed, "MONOCHROME1", frames)
        yield Attributes(8, photometric="PALETTE COLOR", frames=frames)
        yield Attributes(16, 16, photometric="PALETTE COLOR", frames=frames)
        for planar in (0, 1):
            for alloc, stored in ((8, 8), (16, 16), (16, 12), (32, 32)):
                yield Attributes(alloc, stored, 0, "RGB", frames, planar)
            for alloc in (8, 16):
                yield Attributes(alloc, alloc, 0, "YBR_FULL", frames, planar)
        yield Attributes(8, photometric="YBR_FULL_422", frames=frames, columns=COLUMNS + 1)
        yield Attributes(8, photometric="YBR_PARTIAL_422", frames=frames, columns=COLUMNS + 1)


def shared_chroma(values):
    """Y Y Cb Cr of each pair of pixels, and the values with the chroma of the pair in both."""
    pairs = values.reshape(*values.shape[:2], -1, 2, 3)
    written = np.stack([pairs[..., 0, 0], pairs[..., 1, 0], pairs[..., 0, 1], pairs[..., 0, 2]], -1)
    shown = pairs.copy()
    shown[..., 1, 1:] = shown[..., 0, 1:]
    return written, shown.reshape(values.shape)


def native(folder):
    for number, about in enumerate(bases()):
        if about.kind == "integer":
            values = scene(about)
        else:
            values = RNG.normal(0, 1e3, (about.frames, about.rows, about.columns)).astype(container(about))
        written = values
        if about.photometric.endswith("422"):
            written, values = shared_chroma(values)
        body = packed(written, about.but(planar=0) if about.photometric.endswith("422") else about)
        file = instance(EXPLICIT, about, body)
        keep(EXPLICIT, file, about, values, column(about), note=describe(about, "as it stands"))
        source = folder / f"{number}.dcm"
        source.write_bytes(file)
        wide = about.kind == "integer" and about.alloc == 32
        for syntax, option in ((IMPLICIT, "+ti"), (DEFLATED, "+td"), (BIG, "+tb")):
            if syntax == BIG and wide:
                # Bytes reversed in fours and in pairs are both in use (PS3.5 7.3), so nobody can tell.
                continue
            by_dcmtk(syntax, about, source, values, "dcmconv", option)
        # GE's syntax: the data set little endian, 16-bit samples big endian.
        swapped = values.astype(">u2" if not about.signed else ">i2").tobytes() if about.alloc == 16 and not about.planar else None
        if swapped:
            keep(GE, instance(GE, about, swapped), about, values, column(about), note=describe(about, "by hand"))
        encapsulated(about, values, written, source)


def encapsulated(about, values, written, source):
    """The syntaxes that wrap or pack native frames."""
    if about.kind != "integer":
        return
    frames = [packed(frame, about) for frame in written]
    cell(ENCAPSULATED, about, frames, values, "one fragment per frame")
    deflated = []
    for frame in frames:
        state = zlib.compressobj(9, zlib.DEFLATED, -15)
        deflated.append(state.compress(frame) + state.flush())
    cell(DEFLATED_FRAME, about, deflated, values, "zlib")
    if about.alloc == 1 or about.photometric.endswith("422"):
        return
    cell(RLE, about, [rle(frame.astype(container(about))) for frame in values], values, "pydicom")
    if about.alloc <= 16:
        by_dcmtk(RLE, about, source, values, "dcmcrle")
        lossless_by_dcmtk(about, source, values)


def rle(frame):
    """One frame by pydicom's PackBits; its public encoder stops at 16 bits."""
    planes = frame.reshape(*frame.shape[:2], -1)
    segments = []
    for sample in range(planes.shape[2]):
        high_first = np.ascontiguousarray(planes[..., sample]).astype(frame.dtype.newbyteorder(">"))
        cells = high_first.view("u1").reshape(-1, frame.dtype.itemsize)
        segments += [even(bytes(_encode_segment(cells[:, i].tobytes(), frame.shape[1]))) for i in range(frame.dtype.itemsize)]
    starts = np.cumsum([64] + [len(segment) for segment in segments[:-1]])
    return struct.pack("<16I", len(segments), *starts, *[0] * (15 - len(starts))) + b"".join(segments)


def lossless_by_dcmtk(about, source, values):
    if about.alloc == 32 or about.planar or about.photometric == "YBR_PARTIAL_422":
        return
    bits = about.stored
    if bits >= 8 and about.samples == 1 or about.alloc == bits:
        by_dcmtk(JPEG + "70", about, source, values, "dcmcjpeg", "+e1", "+cn")
        by_dcmtk(JPEG + "57", about, source, values, "dcmcjpeg", "+el", "+sv", 1 + bits % 7, "+cn")
        by_dcmtk(JPEG + "80", about, source, values, "dcmcjpls", "+el")


def jpeg_lossless():
    """Every predictor with every precision, and what goes with colour, sign and frames."""
    for bits in range(2, 17):
        alloc = 8 if bits <= 8 else 16
        for predictor in range(1, 8):
            about = Attributes(alloc, bits)
            lossless_jpeg(JPEG + "57", about, predictor, bits)
        lossless_jpeg(JPEG + "70", Attributes(alloc, bits, frames=3), 1, bits)
        lossless_jpeg(JPEG + "57", Attributes(alloc, bits, 1), 1 + bits % 7, bits)
        if bits < alloc:
            # The whole cell was encoded, not only the stored bits.
            lossless_jpeg(JPEG + "57", Attributes(alloc, bits, 1), 6, alloc)
    for photometric in ("RGB", "YBR_FULL"):
        for bits in (8, 12, 16):
            for frames in (1, 3):
                about = Attributes(8 if bits == 8 else 16, bits, 0, photometric, frames)
                lossless_jpeg(JPEG + "57", about, 4, bits)
                lossless_jpeg(JPEG + "70", about, 1, bits)
    for about in (Attributes(8, photometric="PALETTE COLOR"), Attributes(16, 12, photometric="MONOCHROME1")):
        lossless_jpeg(JPEG + "57", about, 7, about.stored)


def lossless_jpeg(syntax, about, predictor, precision):
    values = scene(about)
    bits = (values & (1 << precision) - 1).astype("u1" if precision <= 8 else "<u2")
    frames = [
        bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(frame), lossless=True, predictor=predictor, bitspersample=precision))
        for frame in bits
    ]
    cell(syntax, about, frames, values, f"libjpeg-turbo, predictor {predictor}, precision {precision}")


def jpeg_dct(folder):
    """DCT processes. What is in the stream is said by DCMTK, whose libjpeg is another one than ours."""
    for frames in (1, 3):
        for photometric in ("MONOCHROME2", "MONOCHROME1"):
            about = Attributes(8, photometric=photometric, frames=frames)
            for syntax, option in (("50", "+eb"), ("51", "+ee"), ("53", "+es"), ("55", "+ep")):
                dct_by_dcmtk(folder, JPEG + syntax, about, option)
        about = Attributes(16, 12, frames=frames)
        for syntax, option in (("51", "+ee"), ("53", "+es"), ("55", "+ep")):
            dct_by_dcmtk(folder, JPEG + syntax, about, option)
        for stored in (9, 10):
            dct_by_dcmtk(folder, JPEG + "51", Attributes(16, stored, frames=frames), "+ee")
        for syntax, option in (("50", "+eb"), ("51", "+ee"), ("53", "+es"), ("55", "+ep")):
            rgb = Attributes(8, photometric="RGB", frames=frames)
            dct_by_dcmtk(folder, JPEG + syntax, rgb, option, "+cr")
            dct_by_dcmtk(folder, JPEG + syntax, rgb.but(photometric="YBR_FULL"), option, "+cn")
            dct_by_dcmtk(folder, JPEG + syntax, rgb, option, "+s4", became="YBR_FULL")
            dct_by_dcmtk(folder, JPEG + syntax, rgb, option, "+s2", became="YBR_FULL_422")
    for subsampling in ("444", "422", "420", "440", "411"):
        for frames in (1, 3):
            about = Attributes(8, photometric="YBR_FULL" if subsampling == "444" else "YBR_FULL_422", frames=frames)
            streams = [
                bytes(imagecodecs.jpeg8_encode(frame.astype("u1"), level=90, subsampling=subsampling))
                for frame in scene(about.but(photometric="RGB"))
            ]
            # Chroma that is halved vertically only: libjpeg-turbo interpolates, DCMTK repeats, the standard is silent.
            near = (16, 1.5) if subsampling == "440" else None
            decoded_by_dcmtk(folder, JPEG + "50", about, streams, f"libjpeg-turbo, {subsampling}", near)
    for bits in (8, 12):
        about = Attributes(8 if bits == 8 else 16, bits, frames=3)
        streams = [
            bytes(imagecodecs.jpeg8_encode(frame.astype("u1" if bits == 8 else "<u2"), level=85, bitspersample=bits))
            for frame in scene(about)
        ]
        decoded_by_dcmtk(folder, JPEG + "51", about, streams, f"libjpeg-turbo, {bits} bits")


def dct_by_dcmtk(folder, syntax, about, *options, became=None):
    source = folder / f"dct-{len(PENDING)}.dcm"
    source.write_bytes(instance(EXPLICIT, about, packed(scene(about), about)))
    after = about.but(photometric=became) if became else about
    by_dcmtk(syntax, after, source, None, "dcmcjpeg", *options, decoded=True)


def decoded_by_dcmtk(folder, syntax, about, streams, how, near=None):
    source = folder / f"dct-{len(PENDING)}.dcm"
    file = instance(syntax, about, fragments([even(stream) for stream in streams]))
    source.write_bytes(file)

    def work():
        plain = source.with_suffix(".plain")
        run("dcmdjpeg", "+cn", "+px", source, plain)
        return file, pixels_of(plain), None

    PENDING.append((POOL.submit(work), syntax, about, None, how, near))


def jpeg_ls(folder):
    for frames in (1, 3):
        for near in (0, 1, 2, 3):
            syntax = JPEG + ("81" if near else "80")
            for alloc, bits in ((8, 8), (8, 7), (16, 16), (16, 12), (16, 10)):
                # DCMTK's near-lossless streams of 7 bits can be read by nobody else.
                if bits != 7 or not near:
                    near_lossless(folder, syntax, Attributes(alloc, bits, frames=frames), near)
        for interleave in ("+is", "+il", "+in"):
            for near in (0, 1, 2, 3):
                for bits in (8, 16):
                    about = Attributes(bits, photometric="RGB", frames=frames)
                    near_lossless(folder, JPEG + ("81" if near else "80"), about, near, interleave)
    for bits in (2, 5, 8, 9, 12, 14, 16):
        about = Attributes(8 if bits <= 8 else 16, bits)
        values = scene(about)
        streams = [bytes(imagecodecs.jpegls_encode(frame.astype("u1" if bits <= 8 else "<u2"))) for frame in values]
        cell(JPEG + "80", about, streams, values, "CharLS")
    about = Attributes(8, photometric="YBR_FULL", frames=3)
    values = scene(about)
    cell(JPEG + "80", about, [bytes(imagecodecs.jpegls_encode(frame.astype("u1"))) for frame in values], values, "CharLS")


def near_lossless(folder, syntax, about, near, *options):
    """DCMTK encodes; where something is lost, CharLS 2 says what is left, which must be within `near` of what went in."""
    values = scene(about)
    source = folder / f"ls-{len(PENDING)}.dcm"
    source.write_bytes(instance(EXPLICIT, about, packed(values, about)))
    if not near:
        return by_dcmtk(syntax, about, source, values, "dcmcjpls", "+el", *options)
    command = ["dcmcjpls", "+en", "+md", near, *options]

    def work():
        target = source.with_suffix(".tmp")
        run(*command, source, target)
        file = target.read_bytes()
        streams = pydicom.encaps.generate_frames(pydicom.dcmread(target).PixelData, number_of_frames=about.frames)
        found = np.stack([imagecodecs.jpegls_decode(stream) for stream in streams])
        if np.abs(found.astype(int) - values).max() > near:
            sys.exit(f"{command} lost more than it may")
        return file, found, None

    PENDING.append((POOL.submit(work), syntax, about, None, " ".join(map(str, command)), None))


def jpeg_2000():
    """OpenJPEG and, for high throughput, OpenJPH encode. Part 2 syntaxes with plain streams are what exists of them."""
    for frames in (1, 3):
        for signed in (0, 1):
            for bits in (1, 2, 5, 7, 8, 9, 10, 12, 13, 15, 16):
                about = Attributes(8 if bits <= 8 else 16, bits, signed, frames=frames)
                if bits == 1 and signed:
                    continue
                for syntax in ("90", "92") if frames == 1 else ("90",):
                    j2k(JPEG + syntax, about, reversible=True)
                for syntax in ("91", "93") if frames == 1 else ("91",):
                    j2k(JPEG + syntax, about, reversible=True)
                    if bits >= 8:
                        j2k(JPEG + syntax, about, reversible=False, level=48)
                if bits in (8, 16):
                    htj2k(JPEG + "201", about, reversible=True)
                    htj2k(JPEG + "202", about, reversible=True, tlm=True)
                    htj2k(JPEG + "203", about, reversible=True)
                    htj2k(JPEG + "203", about, reversible=False, level=1 / (1 << bits))
        for photometric in ("RGB", "YBR_RCT", "YBR_FULL"):
            for bits in (8, 12, 16):
                about = Attributes(8 if bits == 8 else 16, bits, 0, photometric, frames)
                for syntax in ("90", "91", "92", "93"):
                    j2k(JPEG + syntax, about, reversible=True, mct=photometric == "YBR_RCT")
                if photometric != "YBR_FULL" and bits != 12:
                    for syntax in ("201", "202", "203"):
                        htj2k(JPEG + syntax, about, reversible=True, rgb=photometric == "YBR_RCT")
        for bits in (8, 16):
            about = Attributes(bits, bits, 0, "YBR_ICT", frames)
            for syntax in ("91", "93"):
                j2k(JPEG + syntax, about, reversible=False, level=48)
            htj2k(JPEG + "203", about, reversible=False, level=1 / (1 << bits), rgb=True)
    for about in (Attributes(8, photometric="PALETTE COLOR"), Attributes(16, 12, photometric="MONOCHROME1")):
        j2k(JPEG + "90", about, reversible=True)
    for bits in (17, 20, 24):
        for signed in (0, 1):
            j2k(JPEG + "90", Attributes(32, bits, signed), reversible=True)


def j2k(syntax, about, reversible, level=None, mct=False):
    values = scene(about)
    mct = mct or about.photometric == "YBR_ICT"
    streams = [
        bytes(imagecodecs.jpeg2k_encode(
            np.ascontiguousarray(frame.astype(container(about))), codecformat="j2k", reversible=reversible, level=level,
            bitspersample=about.stored, mct=mct, resolutions=3))
        for frame in values
    ]
    if not reversible:
        truth = np.stack([imagecodecs.jpeg2k_decode(stream) for stream in streams]).astype(np.int64)
        if np.abs(truth - values).max() > 0.2 * (1 << about.stored):
            sys.exit("OpenJPEG does not recognize its own picture")
        # Another build of OpenJPEG rounds some of many floating point sums the other way.
        return cell(syntax, about, streams, truth, f"OpenJPEG, irreversible, mct {mct}", near=(1, 0.01))
    cell(syntax, about, streams, values, f"OpenJPEG, {'reversible' if reversible else 'irreversible'}, mct {mct}")


def htj2k(syntax, about, reversible, rgb=None, **options):
    # Away from the ends of the range, where the packaged OpenJPH wraps instead of clipping.
    values = scene(about, 0.0 if reversible else 0.1)
    streams = [
        bytes(imagecodecs.htj2k_encode(np.ascontiguousarray(frame.astype(container(about))), reversible=reversible, rgb=rgb, **options))
        for frame in values
    ]
    near = None
    if not reversible:
        values = np.stack([imagecodecs.htj2k_decode(stream) for stream in streams]).astype(np.int64)
        near = (2, 0.5) if about.stored > 8 else (1, 0.01)
    cell(syntax, about, streams, values, f"OpenJPH, {'reversible' if reversible else 'irreversible'}, rgb {rgb}", near=near)


def jpeg_xl():
    for frames in (1, 3):
        for photometric in ("MONOCHROME2", "RGB"):
            for bits in (8, 10, 12, 16):
                about = Attributes(8 if bits == 8 else 16, bits, 0, photometric, frames)
                values = scene(about)
                frame_values = [np.ascontiguousarray(frame.astype(container(about))) for frame in values]
                lossless = [bytes(imagecodecs.jpegxl_encode(f, lossless=True, bitspersample=bits, usecontainer=bool(frames - 1))) for f in frame_values]
                cell(JPEG + "110", about, lossless, values, "libjxl, lossless")
                cell(JPEG + "112", about, lossless, values, "libjxl, lossless")
                if bits in (8, 16):
                    lossy = [bytes(imagecodecs.jpegxl_encode(f, distance=1.0, bitspersample=bits, usecontainer=False)) for f in frame_values]
                    truth = np.stack([imagecodecs.jpegxl_decode(stream) for stream in lossy])
                    xyb = about.but(photometric="XYB") if photometric == "RGB" else about
                    cell(JPEG + "112", xyb, lossy, truth, "libjxl, distance 1", near=(1, 0.5))
    for photometric, subsampling in (("MONOCHROME2", None), ("YBR_FULL", "444"), ("YBR_FULL_422", "422"), ("YBR_FULL_422", "420")):
        about = Attributes(8, photometric=photometric, frames=3)
        source = scene(about.but(photometric="RGB") if about.samples == 3 else about).astype("u1")
        jpegs = [bytes(imagecodecs.jpeg8_encode(frame, level=90, subsampling=subsampling)) for frame in source]
        streams = [bytes(imagecodecs.jpegxl_encode_jpeg(jpeg)) for jpeg in jpegs]
        truth = np.stack([imagecodecs.jpegxl_decode(stream) for stream in streams])
        cell(JPEG + "111", about, streams, truth, f"libjxl from JPEG {subsampling}", near=(1, 0.5), photometric="RGB" if about.samples == 3 else None)


# --- odd but legal ----------------------------------------------------------------------------------------------------------


def strange(title, syntax, about, body, values=None, note="", refused=None, photometric=None, **how):
    keep(syntax, instance(syntax, about, body, **how), about, values, title=title, note=note, refused=refused, photometric=photometric)


def odd(folder):
    cells()
    bits()
    floats()
    fragmented()
    lengths()
    delimiters()
    colour_of_jpeg()
    narrow_streams()
    jpeg_details()
    cut(folder)
    wavelets()
    contradictions(folder)


def ls(frame):
    return even(bytes(imagecodecs.jpegls_encode(np.ascontiguousarray(frame))))


def cells():
    """Bits of a cell that are not part of the value."""
    about = Attributes(16, 12)
    values = scene(about)
    above = values | RNG.integers(0, 16, values.shape) << 12
    signed = Attributes(16, 12, 1)
    signed_values = scene(signed)
    dirty = signed_values & 0xFFF | RNG.integers(0, 16, values.shape) << 12
    for title, about, values, cell16 in (
        ("overlay bits above High Bit", about, values, above),
        ("overlay bits above High Bit of signed values", signed, signed_values, dirty),
        ("signed values that are not extended to the cell", signed, signed_values, signed_values & 0xFFF),
    ):
        cell16 = cell16.astype("<u2")
        strange(title, EXPLICIT, about, cell16.tobytes(), values, "native")
        strange(title, RLE, about, fragments([even(rle(frame)) for frame in cell16]), values, "RLE")
        strange(title, JPEG + "57", about, fragments([even(bytes(imagecodecs.jpeg8_encode(f, lossless=True, predictor=2, bitspersample=16))) for f in cell16]), values, "JPEG")
        strange(title, JPEG + "80", about, fragments([ls(frame) for frame in cell16]), values, "JPEG-LS")
        strange(title, JPEG + "90", about, fragments([even(bytes(imagecodecs.jpeg2k_encode(f, codecformat="j2k", reversible=True))) for f in cell16]), values, "J2K")
        strange(title, JPEG + "201", about, fragments([even(bytes(imagecodecs.htj2k_encode(f, reversible=True))) for f in cell16]), values, "HTJ2K")
    about = Attributes(16, 12, high=15)
    values = scene(about)
    strange("High Bit above Bits Stored - 1", EXPLICIT, about, (values << 4).astype("<u2").tobytes(), values, "left")
    about = Attributes(16, 10, 1, high=12)
    values = scene(about)
    noise = RNG.integers(0, 8, values.shape) | RNG.integers(0, 8, values.shape) << 13
    strange("High Bit above Bits Stored - 1", EXPLICIT, about, ((values & 0x3FF) << 3 | noise).astype("<u2").tobytes(), values, "middle, signed")


def bits():
    for rows, columns, frames in ((7, 7, 3), (5, 3, 8), (1, 1, 9), (16, 16, 2)):
        about = Attributes(1, rows=rows, columns=columns, frames=frames)
        values = RNG.integers(0, 2, (frames, rows, columns))
        strange("1-bit frames that begin inside a byte", EXPLICIT, about, packed(values, about), values, f"{rows} x {columns}")
        strange("1-bit frames, each padded to bytes where it is a fragment", ENCAPSULATED, about,
                fragments([even(packed(frame, about)) for frame in values]), values, f"{rows} x {columns}")


def floats():
    for kind, alloc in (("float", 32), ("double", 64)):
        about = Attributes(alloc, kind=kind, frames=2)
        values = RNG.normal(0, 1, (2, ROWS, COLUMNS)).astype(container(about))
        values.flat[:4] = [np.inf, -np.inf, np.nan, -0.0]
        strange("float and double float with infinities and NaN", EXPLICIT, about, values.tobytes(), values, kind)


def fragmented():
    about = Attributes(16, 16, frames=4)
    values = scene(about)
    frames = values.astype("<u2")
    coded = {
        JPEG + "80": [ls(frame) for frame in frames],
        JPEG + "90": [even(bytes(imagecodecs.jpeg2k_encode(frame, codecformat="j2k", reversible=True))) for frame in frames],
        JPEG + "57": [even(bytes(imagecodecs.jpeg8_encode(frame, lossless=True, predictor=1, bitspersample=16))) for frame in frames],
        RLE: [even(rle(frame)) for frame in frames],
        JPEG + "110": [even(bytes(imagecodecs.jpegxl_encode(frame, lossless=True, usecontainer=False))) for frame in frames],
    }
    for syntax, streams in coded.items():
        whole = [[stream] for stream in streams]
        thirds = [[even_cut(stream, i) for i in range(3)] for stream in streams]
        right = offsets(whole)
        for note, table in (("empty", b""), ("right", right)):
            strange("basic offset table, one fragment per frame", syntax, about, fragments(streams, table), values, note)
        for note, table in (("zeros", b"\0" * 16), ("descending", right[::-1]), ("short", right[:8]), ("long", right + right),
                            ("odd length", right[:6]), ("beyond", struct.pack("<4I", 0, 9, 1 << 30, 0xFFFFFFFF))):
            strange("wrong basic offset table, one fragment per frame", syntax, about, fragments(streams, table), values, note)
        lengths = [len(stream) for stream in streams]
        starts = struct.unpack("<4I", right)
        extended = ((0x7FE0, 1, "OV", struct.pack("<4Q", *starts)), (0x7FE0, 2, "OV", struct.pack("<4Q", *lengths)))
        strange("extended offset table", syntax, about.but(extra=extended), fragments(streams), values)
        wrong = ((0x7FE0, 1, "OV", struct.pack("<4Q", 3, 5, 7, 1 << 60)), (0x7FE0, 2, "OV", struct.pack("<4Q", *[1 << 62] * 4)))
        strange("wrong extended offset table", syntax, about.but(extra=wrong), fragments(streams), values)
        parts = [part for frame in thirds for part in frame]
        strange("three fragments per frame, basic offset table", syntax, about, fragments(parts, offsets(thirds)), values)
        told = syntax != RLE
        unknown = None if told else "frame-boundaries-unknown"
        for note, table in (("none", b""), ("wrong", b"\4" * 16)):
            strange(f"three fragments per frame, {note if note == 'wrong' else 'no'} offset table" + ("" if told else ", RLE"),
                    syntax, about, fragments(parts, table), values, note, refused=unknown)
        single = about.but(frames=1)
        strange("one frame in many fragments", syntax, single, fragments(thirds[0]), values[:1])
        strange("one frame in fragments of two bytes", syntax, single,
                fragments([streams[0][i : i + 2] for i in range(0, len(streams[0]), 2)]), values[:1])
        empty = [b"", streams[0], b"", b"", streams[1], streams[2], streams[3], b""]
        strange("empty fragments between frames", syntax, about, fragments(empty), values)
        if told:
            strange("more code streams than frames", syntax, about.but(frames=3), fragments(streams), refused="frame-boundaries-unknown")
        strange("fewer frames than declared", syntax, about, fragments(streams[:3]), refused="pixel-data-truncated")


def even_cut(stream, third):
    """One of three pieces of even length."""
    size = len(stream) // 6 * 2
    return stream[third * size : (third + 1) * size if third < 2 else None]


def lengths():
    about = Attributes(8)
    values = scene(about)
    body = packed(values, about)
    strange("native value of odd length", EXPLICIT, about, body, values, odd=True)
    strange("bytes after the last native frame", EXPLICIT, about, body + b"\xaa" * 1001, values)
    strange("native value shorter than its frames", EXPLICIT, about, body[:-2], refused="pixel-data-truncated")
    for vr in ("OB", "OW", "UN"):
        sixteen = Attributes(16, 14)
        deep = scene(sixteen)
        strange("Pixel Data with another VR than is right", EXPLICIT, sixteen, packed(deep, sixteen), deep, vr, vr=vr)
        strange("Pixel Data with another VR than is right", EXPLICIT, about, body, values, vr, vr=vr)
    for text in ("1", " 1 ", "01", "+1", ""):
        strange("Number of Frames in unusual spelling, or empty", EXPLICIT, about, body, values, repr(text), frames_text=text)
    for text in ("1A", "0", "-1", "1\\1", "1.0"):
        strange("Number of Frames that is no positive integer", EXPLICIT, about, body, note=repr(text), frames_text=text,
                refused="attributes-contradict")
    for syntax, stream in (
        (JPEG + "80", ls(values[0].astype("u1"))),
        (JPEG + "70", bytes(imagecodecs.jpeg8_encode(values[0].astype("u1"), lossless=True, predictor=1))),
        (JPEG + "90", bytes(imagecodecs.jpeg2k_encode(values[0].astype("u1"), codecformat="j2k", reversible=True))),
        (JPEG + "201", bytes(imagecodecs.htj2k_encode(values[0].astype("u1"), reversible=True))),
        (RLE, rle(values[0].astype("u1"))),
    ):
        for note, tail in (("zeros", b"\0" * 9), ("0xFF", b"\xff" * 8), ("noise", bytes(RNG.integers(0, 256, 64, "u1")))):
            strange("bytes after the end of a code stream", syntax, about, fragments([even(stream + tail)]), values, note)
        strange("fragment of odd length", syntax, about, fragments([stream + b"\0" * (1 - len(stream) % 2)]), values)


def delimiters():
    """Pixels that look like the items and delimiters around them."""
    mark = b"\xfe\xff\xdd\xe0\0\0\0\0" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + b"\xfe\xff\x0d\xe0\0\0\0\0"
    about = Attributes(8, rows=12, columns=10, frames=2)
    body = (mark * 10)[:240]
    values = np.frombuffer(body, "u1").reshape(2, 12, 10)
    title = "delimiters inside pixel data"
    strange(title, EXPLICIT, about, body, values, "native")
    strange(title, IMPLICIT, about, body, values, "native")
    strange(title, ENCAPSULATED, about, fragments([body[:120], body[120:]]), values, "fragments")
    literal = lambda part: struct.pack("<16I", 1, 64, *[0] * 14) + bytes([119]) + part + b"\0"
    strange(title, RLE, about, fragments([literal(body[:120]), literal(body[120:])]), values, "RLE literals")
    stored = [zlib.compressobj(0, zlib.DEFLATED, -15) for _ in range(2)]
    parts = [even(s.compress(body[i * 120 :][:120]) + s.flush()) for i, s in enumerate(stored)]
    strange(title, DEFLATED_FRAME, about, fragments(parts), values, "stored blocks")


def marked(stream, ids, adobe, jfif):
    """A JPEG stream with other component ids and colour markers; its samples stay what they are."""
    out, at = [b"\xff\xd8"], 2
    if jfif:
        out.append(b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0")
    if adobe is not None:
        out.append(b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([adobe]))
    while True:
        marker, length = stream[at + 1], int.from_bytes(stream[at + 2 : at + 4], "big")
        segment = bytearray(stream[at + 4 : at + 2 + length])
        at += 2 + length
        if marker in (0xC0, 0xC3):
            segment[6::3] = ids
        if marker == 0xDA:
            segment[1:7:2] = ids
        if marker not in (0xE0, 0xEE):
            out.append(bytes([0xFF, marker]) + (len(segment) + 2).to_bytes(2, "big") + bytes(segment))
        if marker == 0xDA:
            return even(b"".join(out) + stream[at:])


def colour_of_jpeg():
    """Stored values are what is in the stream, whatever its markers say about colour."""
    rgb = Attributes(8, photometric="RGB")
    values = scene(rgb)
    source = np.ascontiguousarray(values[0].astype("u1"))
    stream = bytes(imagecodecs.jpeg8_encode(source, lossless=True, predictor=1))
    for photometric in ("RGB", "YBR_FULL"):
        for ids in (b"\1\2\3", b"\0\1\2", b"RGB", b"rgb"):
            for adobe in (None, 0, 1):
                for jfif in (False, True):
                    body = fragments([marked(stream, ids, adobe, jfif)])
                    says_rgb = adobe == 0 or ids.upper() == b"RGB"
                    quarrel = adobe == 1 if photometric == "RGB" else says_rgb
                    title = "JPEG colour markers and component ids that " + ("contradict" if quarrel else "fit") + " the attribute"
                    strange(title, JPEG + "57", rgb.but(photometric=photometric), body, values,
                            f"{photometric}, ids {ids}, Adobe {adobe}, JFIF {jfif}")
                    INDEX[-1]["shown"] = "header-mismatch" if quarrel else "as RGB"
    palette = Attributes(8, photometric="RGB", planar=1)
    strange("Planar Configuration 1 with a code stream", JPEG + "57", palette, fragments([even(stream)]), values, "JPEG")
    strange("Planar Configuration 1 with a code stream", JPEG + "80", palette, fragments([ls(source)]), values, "JPEG-LS")
    strange("Planar Configuration 1 with a code stream", RLE, palette, fragments([rle(source)]), values, "RLE")
    wavelet = bytes(imagecodecs.jpeg2k_encode(source, codecformat="j2k", reversible=True, mct=True))
    strange("Planar Configuration 1 with a code stream", JPEG + "90", palette, fragments([even(wavelet)]), values, "J2K")


def narrow_streams():
    """Eight bits in cells of sixteen."""
    for photometric in ("MONOCHROME2", "RGB"):
        about = Attributes(16, 8, photometric=photometric)
        values = scene(about)
        source = np.ascontiguousarray(values[0].astype("u1"))
        for syntax, stream in (
            (JPEG + "70", imagecodecs.jpeg8_encode(source, lossless=True, predictor=1)),
            (JPEG + "80", imagecodecs.jpegls_encode(source)),
            (JPEG + "90", imagecodecs.jpeg2k_encode(source, codecformat="j2k", reversible=True)),
            (JPEG + "201", imagecodecs.htj2k_encode(source, reversible=True)),
            (JPEG + "110", imagecodecs.jpegxl_encode(source, lossless=True, usecontainer=False)),
        ):
            strange("8-bit code stream with 16 bits allocated", syntax, about, fragments([even(bytes(stream))]), values, photometric)


def jpeg_details():
    about = Attributes(8)
    values = scene(about)
    stream = bytes(imagecodecs.jpeg8_encode(values[0].astype("u1"), lossless=True, predictor=1))
    strange("JPEG without end marker", JPEG + "70", about, fragments([even(stream[:-2])]), values)
    at = stream.index(b"\xff\xc3")
    strange("fill bytes before a JPEG marker", JPEG + "70", about, fragments([even(stream[:at] + b"\xff\xff\xff" + stream[at:])]), values)
    comment = b"\xff\xfe\0\x06abcd" + b"\xff\xe5\0\x04\xff\xda"
    strange("comments and application data in a JPEG", JPEG + "70", about, fragments([even(stream[:at] + comment + stream[at:])]), values)
    strange("JPEG cut in its data", JPEG + "70", about, fragments([even(stream[: len(stream) // 2])]), refused="codec-error")


def cut(folder):
    """Code streams that end too early: a picture with the rest made up is no answer."""
    grey, rgb = Attributes(8, rows=48, columns=40), Attributes(8, photometric="RGB", rows=24, columns=20)
    values, colour = scene(grey), scene(rgb)
    frame, colour_frame = np.ascontiguousarray(values[0].astype("u1")), np.ascontiguousarray(colour[0].astype("u1"))
    source, target = folder / "cut.dcm", folder / "cut.tmp"
    source.write_bytes(instance(EXPLICIT, grey, packed(values, grey)))
    run("dcmcjpeg", "+ep", source, target)
    progressive = next(pydicom.encaps.generate_frames(pydicom.dcmread(target).PixelData, number_of_frames=1))
    source.write_bytes(instance(EXPLICIT, rgb, packed(colour, rgb)))
    run("dcmcjpls", "+el", "+in", source, target)
    planes = next(pydicom.encaps.generate_frames(pydicom.dcmread(target).PixelData, number_of_frames=1))
    baseline = imagecodecs.jpeg8_encode(frame, level=90)
    state = zlib.compressobj(9, zlib.DEFLATED, -15)
    deflated = state.compress(frame.tobytes()) + state.flush()
    for what, syntax, about, stream, truth in (
        ("JPEG baseline", JPEG + "50", grey, baseline, imagecodecs.jpeg8_decode(bytes(baseline))[None]),
        ("JPEG progressive", JPEG + "55", grey, progressive, imagecodecs.jpeg8_decode(progressive)[None]),
        ("JPEG lossless", JPEG + "70", grey, imagecodecs.jpeg8_encode(frame, lossless=True, predictor=1), values),
        ("JPEG lossless, colour", JPEG + "57", rgb, imagecodecs.jpeg8_encode(colour_frame, lossless=True, predictor=5), colour),
        ("JPEG-LS", JPEG + "80", grey, imagecodecs.jpegls_encode(frame), values),
        ("JPEG-LS, a scan per colour", JPEG + "80", rgb, planes, colour),
        ("JPEG 2000", JPEG + "90", grey, imagecodecs.jpeg2k_encode(frame, codecformat="j2k", reversible=True), values),
        ("JPEG 2000, colour", JPEG + "90", rgb, imagecodecs.jpeg2k_encode(colour_frame, codecformat="j2k", reversible=True, resolutions=2), colour),
        ("HTJ2K", JPEG + "201", grey, imagecodecs.htj2k_encode(frame, reversible=True), values),
        ("JPEG XL", JPEG + "110", grey, imagecodecs.jpegxl_encode(frame, lossless=True, usecontainer=False), values),
        ("RLE", RLE, grey, rle(frame), values),
        ("deflate", DEFLATED_FRAME, grey, deflated, values),
    ):
        stream = bytes(stream)
        ends = sorted({*np.linspace(2, len(stream), 40, endpoint=False).astype(int), *range(len(stream) - 8, len(stream))})
        if what.startswith("JPEG prog"):
            # Just before a segment: whole scans are missing, and nothing is cut.
            ends += [at for at in range(2, len(stream)) if stream[at] == 0xFF and stream[at + 1] in (0xC4, 0xDA)]
        for end in ends:
            strange(f"code stream cut at many places: {what}", syntax, about, fragments([stream[:end]]), truth, f"after {end} of {len(stream)}")
            INDEX[-1]["either"] = True


def wavelets():
    unsigned, signed = Attributes(16, 12), Attributes(16, 12, 1)
    values, signed_values = scene(unsigned), scene(signed)

    def coded(array, **options):
        return fragments([even(bytes(imagecodecs.jpeg2k_encode(np.ascontiguousarray(array[0]), reversible=True, **({"codecformat": "j2k"} | options))))])

    title = "Pixel Representation that contradicts a JPEG 2000 stream"
    strange(title, JPEG + "90", unsigned, coded((values << 4 >> 4).astype("<i2"), bitspersample=16), values, "signed stream of 16 bits")
    strange(title, JPEG + "90", unsigned, coded(np.where(values > 2047, values - 4096, values).astype("<i2"), bitspersample=12), values, "signed stream of 12 bits")
    strange(title, JPEG + "90", signed, coded((signed_values & 0xFFF).astype("<u2"), bitspersample=12), signed_values, "unsigned stream of 12 bits")
    strange(title, JPEG + "90", signed, coded((signed_values & 0xFFFF).astype("<u2"), bitspersample=16), signed_values, "unsigned stream of 16 bits")
    strange("JPEG 2000 in a JP2 file", JPEG + "90", unsigned, coded(values.astype("<u2"), codecformat="jp2", bitspersample=12), values)
    tiled = bytes(imagecodecs.htj2k_encode(values[0].astype("<u2"), reversible=True, tile=(8, 8)))
    strange("HTJ2K with tiles", JPEG + "201", unsigned, fragments([even(tiled)]), values)
    rgb = Attributes(8, photometric="RGB")
    colour = scene(rgb)
    strange("RGB with the colour transform of JPEG 2000", JPEG + "90", rgb, coded(colour.astype("u1"), mct=True), colour)
    strange("YBR_RCT without the colour transform of JPEG 2000", JPEG + "90", rgb.but(photometric="YBR_RCT"), coded(colour.astype("u1"), mct=False), colour)
    body = subsampled_wavelet(colour[0])
    strange("JPEG 2000 with subsampled components", JPEG + "90", rgb.but(photometric="YBR_FULL_422"), body, refused="codec-error")


def subsampled_wavelet(frame):
    """The stream of an ordinary image whose header says that chroma has half the columns."""
    stream = bytearray(imagecodecs.jpeg2k_encode(np.ascontiguousarray(frame.astype("u1")), codecformat="j2k", reversible=True, mct=False))
    stream[46:48] = b"\2\1"
    stream[49:51] = b"\2\1"
    return fragments([even(bytes(stream))])


def contradictions(folder):
    """Nothing here has one right answer."""
    about = Attributes(8)
    values = scene(about)
    stream = ls(values[0].astype("u1"))
    body = fragments([stream])
    other = "header-mismatch"
    strange("code stream of another size", JPEG + "80", about.but(rows=ROWS + 1), body, refused=other)
    strange("code stream of another number of samples", JPEG + "80", about.but(photometric="RGB"), body, refused=other)
    strange("code stream of more bits than the cell has", JPEG + "80", about, fragments([ls(scene(Attributes(16, 16))[0].astype("<u2"))]), refused=other)
    strange("code stream of fewer bits than are stored", JPEG + "80", Attributes(16, 12), body, refused=other)
    strange("JPEG in a JPEG-LS syntax", JPEG + "80", about,
            fragments([even(bytes(imagecodecs.jpeg8_encode(values[0].astype("u1"), level=90)))]), refused="codec-error")
    wide = Attributes(32)
    source, swapped = folder / "wide.dcm", folder / "wide.big"
    source.write_bytes(instance(EXPLICIT, wide, packed(scene(wide), wide)))
    run("dcmconv", "+tb", source, swapped)
    keep(BIG, swapped.read_bytes(), wide, title="32-bit samples in big endian words", refused="byte-order-ambiguous")
    wide = Attributes(8, photometric="YBR_FULL_422")
    strange("4:2:2 chroma with an odd number of columns", EXPLICIT, wide, b"\0" * (ROWS * COLUMNS * 2), refused="attributes-contradict")
    strange("YBR_PARTIAL_420 without compression", EXPLICIT, Attributes(8, photometric="YBR_PARTIAL_420"), b"\0" * (ROWS * COLUMNS * 3),
            refused="photometric-unsupported")
    for syntax in ("100", "102", "103", "104", "107", "108", "100.1", "106.1"):
        strange("MPEG-2, MPEG-4 and HEVC video", JPEG + syntax, Attributes(8, photometric="YBR_PARTIAL_420", frames=9), fragments([b"\0\0\1\xb3" * 8]),
                refused="video")
    strange("native value in a compressed syntax", JPEG + "80", about, packed(values, about), refused="header-mismatch", native=True)
    strange("fragments in a native syntax", EXPLICIT, about, fragments([packed(values, about)]), refused="header-mismatch", native=False)
    for photometric in ("CMYK", "ARGB", "HSV"):
        strange("CMYK, ARGB, HSV (retired)", EXPLICIT, Attributes(8, photometric=photometric), b"\0" * (ROWS * COLUMNS * 4),
                refused="photometric-unsupported")
    strange("12 bits packed (Bits Allocated 12)", EXPLICIT, Attributes(12, 12), b"\0" * (ROWS * COLUMNS * 2), refused="bits-unsupported")


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    work = OUT / "work"
    work.mkdir()
    native(work)
    jpeg_lossless()
    jpeg_dct(work)
    jpeg_ls(work)
    jpeg_2000()
    jpeg_xl()
    odd(work)
    collect()
    shutil.rmtree(work)
    (OUT / "index.json").write_text(json.dumps(INDEX, indent=0))


if __name__ == "__main__":
    main()
