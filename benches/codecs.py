"""Decodes the same files with the gateway, GDCM and pylibjpeg on one thread, and prints a table with ratios.

Usage: codecs.py [--frames N] [--rounds N] [--cargo COMMAND]

The files hold frames of 512x512: CT-like 16-bit noise and structure, 12 bits for JPEG extended, 8-bit colour. Everybody
goes from the path of the file (in the page cache) to the stored values of all frames, in turns. The figures are processor
time per frame, so that other work on the machine and threads of a library change nothing; the median of the rounds. GDCM works in its C++ library without passing pixels to Python; pylibjpeg is
called through pydicom, as Python programs do, so that Python's own time is part of its figure. Where neither decodes a
syntax, the peer is imagecodecs. A ratio above 1 means that the gateway is faster.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gdcm
import imagecodecs
import numpy as np
import pydicom
from pydicom import uid
from pydicom._uid_dict import UID_dictionary
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import get_decoder

ROOT = Path(__file__).resolve().parent.parent
SIZE = 512
# pydicom 3.0 does not know it and would not write it.
JPEG_XL_LOSSLESS = "1.2.840.10008.1.2.4.110"
UID_dictionary.setdefault(JPEG_XL_LOSSLESS, ("JPEG XL Lossless", "Transfer Syntax", "", "", "JPEGXLLossless"))
ENOUGH_SECONDS = 0.3


def pictures(frames: int) -> dict[str, np.ndarray]:
    """Frames with the statistics that codecs live from: smooth regions, edges, noise, air around the patient."""
    rng = np.random.default_rng(11)
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    ct, rgb = [], []
    for n in range(frames):
        body = (x / 0.8) ** 2 + (y / 0.6) ** 2 < 1
        tissue = 1060 + 60 * np.sin(9 * x + n) * np.cos(7 * y) + 600 * ((x * x + (y - 0.35) ** 2) < 0.015)
        values = np.where(body, tissue, 24) + rng.normal(0, 1, x.shape) * np.where(body, 12, 4)
        ct.append(np.clip(values, 0, 4095).round().astype(np.uint16))
        echo = np.clip(np.where(body, 90 + 70 * np.sin(20 * x * y + n), 0) + rng.normal(0, 10, x.shape) * body, 0, 255)
        rgb.append(np.stack([echo, echo * 0.9, np.where(y > 0.5, 40, echo)], -1).astype(np.uint8))
    return {"ct": np.stack(ct), "rgb": np.stack(rgb)}


def dataset(frames: np.ndarray, syntax: str, stored: int, photometric: str) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7.3"
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid.generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality = uid.generate_uid(), uid.generate_uid(), "OT"
    ds.NumberOfFrames, ds.Rows, ds.Columns = frames.shape[0], SIZE, SIZE
    ds.SamplesPerPixel = frames.shape[3] if frames.ndim == 4 else 1
    if ds.SamplesPerPixel == 3:
        ds.PlanarConfiguration = 0
    ds.PhotometricInterpretation = photometric
    ds.BitsAllocated = frames.dtype.itemsize * 8
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = stored, stored - 1, 0
    return ds


def cases(frames: int):
    """Name, data set and the function that imagecodecs has for it."""
    images = pictures(frames)
    ct, rgb = images["ct"], images["rgb"]
    codec = imagecodecs

    def native(name, values, syntax):
        stored, photometric = (16, "MONOCHROME2") if values is ct else (8, "RGB")
        ds = dataset(values, syntax, stored, photometric)
        ds.PixelData = values.tobytes()
        ds["PixelData"].VR = "OW" if values is ct else "OB"
        return name, ds, None

    def compressed(name, values, syntax, encode, decode=None, stored=None, photometric=None):
        stored = stored or (16 if values is ct else 8)
        ds = dataset(values, syntax, stored, photometric or ("MONOCHROME2" if values is ct else "RGB"))
        ds.PixelData = encapsulate([encode(np.ascontiguousarray(frame)) for frame in values])
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True
        return name, ds, decode

    def rle(name, values):
        _, ds, _ = native(name, values, uid.ExplicitVRLittleEndian)
        ds.compress(uid.RLELossless, generate_instance_uid=False)
        return name, ds, None

    yield native("native, 16 bit", ct, uid.ExplicitVRLittleEndian)
    yield native("native, RGB", rgb, uid.ExplicitVRLittleEndian)
    yield native("deflated data set, 16 bit", ct, uid.DeflatedExplicitVRLittleEndian)
    yield rle("RLE, 16 bit", ct)
    yield rle("RLE, RGB", rgb)
    yield compressed("JPEG baseline, 8 bit", rgb[..., 0], uid.JPEGBaseline8Bit, lambda f: codec.jpeg8_encode(f, level=90), photometric="MONOCHROME2")
    yield compressed("JPEG baseline, YBR 4:2:2", rgb, uid.JPEGBaseline8Bit, lambda f: codec.jpeg8_encode(f, level=90, subsampling="422"), photometric="YBR_FULL_422")
    yield compressed("JPEG extended, 12 bit", ct, uid.JPEGExtended12Bit, lambda f: codec.jpeg8_encode(f, level=90, bitspersample=12), stored=12)
    yield compressed("JPEG lossless SV1, 16 bit", ct, uid.JPEGLosslessSV1, lambda f: codec.jpeg8_encode(f, lossless=True, predictor=1, bitspersample=16))
    yield compressed("JPEG-LS lossless, 16 bit", ct, uid.JPEGLSLossless, codec.jpegls_encode)
    yield compressed("JPEG-LS lossless, RGB", rgb, uid.JPEGLSLossless, codec.jpegls_encode)
    yield compressed("JPEG-LS near 2, 16 bit", ct, uid.JPEGLSNearLossless, lambda f: codec.jpegls_encode(f, level=2))
    yield compressed("JPEG 2000 lossless, 16 bit", ct, uid.JPEG2000Lossless, lambda f: codec.jpeg2k_encode(f, codecformat="j2k", reversible=True))
    yield compressed("JPEG 2000 lossless, RGB", rgb, uid.JPEG2000Lossless, lambda f: codec.jpeg2k_encode(f, codecformat="j2k", reversible=True, mct=True), photometric="YBR_RCT")
    yield compressed("JPEG 2000 lossy, 16 bit", ct, uid.JPEG2000, lambda f: codec.jpeg2k_encode(f, codecformat="j2k", level=80))
    yield compressed("HTJ2K lossless, 16 bit", ct, uid.HTJ2KLossless, lambda f: codec.htj2k_encode(f, reversible=True))
    yield compressed("HTJ2K lossless, RGB", rgb, uid.HTJ2KLossless, lambda f: codec.htj2k_encode(f, reversible=True), photometric="YBR_RCT")
    yield compressed("JPEG XL lossless, 16 bit", ct, JPEG_XL_LOSSLESS, lambda f: codec.jpegxl_encode(f, lossless=True, usecontainer=False), codec.jpegxl_decode)
    yield compressed("JPEG XL lossless, RGB", rgb, JPEG_XL_LOSSLESS, lambda f: codec.jpegxl_encode(f, lossless=True, usecontainer=False), codec.jpegxl_decode)


def by_gdcm(path: str, _) -> None:
    reader = gdcm.ImageReader()
    reader.SetFileName(path)
    if not reader.Read():
        raise ValueError("GDCM does not read it")
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ExplicitVRLittleEndian))
    change.SetInput(reader.GetImage())
    if not change.Change():
        raise ValueError("GDCM does not decode it")


def by_pylibjpeg(path: str, _) -> None:
    ds = pydicom.dcmread(path)
    syntax = ds.file_meta.TransferSyntaxUID
    plugin = "pylibjpeg" if syntax.is_encapsulated else ""
    get_decoder(syntax).as_array(ds, raw=True, decoding_plugin=plugin)


def by_imagecodecs(path: str, decode) -> None:
    if decode is None:
        raise ValueError("not needed")
    ds = pydicom.dcmread(path)
    for frame in generate_frames(ds.PixelData, number_of_frames=ds.NumberOfFrames):
        decode(frame)


def seconds(decode, path: str, function, frames: int) -> float | None:
    """Processor time per frame, or None where the decoder refuses."""
    count, started = 0, time.process_time()
    try:
        while (spent := time.process_time() - started) < ENOUGH_SECONDS:
            decode(path, function)
            count += frames
    except Exception:  # noqa: BLE001  a decoder that cannot is a dash in the table
        return None
    return spent / count


def ours(cargo: list[str], path: str) -> float | None:
    out = subprocess.run([*cargo, path], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    answer = json.loads(out)
    if "error" in answer:
        print(f"{path}: {answer['error']}", file=sys.stderr)
    return answer.get("seconds_per_frame")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cargo", default="cargo bench --quiet --bench decode --", help="what decodes the files named after it")
    options = parser.parse_args()
    cargo = shlex.split(options.cargo)
    subprocess.run(cargo, cwd=ROOT, check=True)  # builds it
    peers = {"GDCM": by_gdcm, "pylibjpeg": by_pylibjpeg, "imagecodecs": by_imagecodecs}
    print("| syntax | gateway ms | GDCM ms | pylibjpeg ms | best peer / gateway |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="codecs-") as folder:
        for n, (name, ds, function) in enumerate(cases(options.frames)):
            path = f"{folder}/{n}.dcm"
            ds.save_as(path, enforce_file_format=True)
            times: dict[str, list[float | None]] = {}
            for _ in range(options.rounds):
                times.setdefault("gateway", []).append(ours(cargo, path))
                for peer, decode in peers.items():
                    if None not in times.setdefault(peer, []):
                        times[peer].append(seconds(decode, path, function, options.frames))
            middle = {who: statistics.median(all_) if None not in all_ else None for who, all_ in times.items()}
            print(row(name, middle), flush=True)


def row(name: str, times: dict[str, float | None]) -> str:
    mine = times.pop("gateway")
    found = {peer: value for peer, value in times.items() if value}
    best = min(found, key=found.get, default=None)
    ratio = f"{found[best] / mine:.2f} ({best})" if mine and best else "–"

    def ms(value):
        return f"{value * 1000:.2f}" if value else "–"

    return f"| {name} | {ms(mine)} | {ms(times['GDCM'])} | {ms(times['pylibjpeg'])} | {ratio} |"


if __name__ == "__main__":
    main()
