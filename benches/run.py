"""Measures the gateway beside real peers in one run, and prints tables with ratios.

Usage: run.py GATEWAY_BINARY [--quick]

Everything runs on this machine: senders and receivers share its cores. Peers: DCMTK storescp for ingest, the bare disk
(write + fdatasync) for durability, onnxruntime in Python for inference. Nothing here is asserted: a number that falls
short is printed like any other.
"""

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import onnxruntime
import pydicom
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless, generate_uid

ROOT = Path(__file__).resolve().parent.parent
CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
DX_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.1.1"


def slices(folder: Path, count: int, rows: int = 512, dx: bool = False, studies: int = 1) -> None:
    """Writes `count` uncompressed images; the content is noise, so that nothing compresses or repeats."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(7)
    study_uids = [generate_uid() for _ in range(studies)]
    series_uids = [generate_uid() for _ in range(studies)]
    for n in range(count):
        ds = pydicom.Dataset()
        ds.SOPClassUID = DX_IMAGE_STORAGE if dx else CT_IMAGE_STORAGE
        ds.SOPInstanceUID = generate_uid()
        ds.StudyInstanceUID, ds.SeriesInstanceUID = study_uids[n % studies], series_uids[n % studies]
        ds.Modality, ds.InstanceNumber = ("DX", 1) if dx else ("CT", n + 1)
        ds.PatientName, ds.PatientID = "PHANTOM^BENCH", "PHANTOM-1"
        if dx:
            ds.BodyPartExamined, ds.ViewPosition = "CHEST", "PA"
            ds.WindowCenter, ds.WindowWidth = 2048, 4096
        ds.Rows = ds.Columns = rows
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.RescaleSlope, ds.RescaleIntercept = 1, 0
        ds.PixelData = rng.integers(0, 4096, (rows, rows), dtype=np.uint16).tobytes()
        ds.file_meta = pydicom.dataset.FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.save_as(folder / f"{n:05}.dcm", enforce_file_format=True)


class Gateway:
    """The real binary on free ports, with a file as its broker unless told otherwise."""

    def __init__(self, binary: str, spool: Path, **settings: str):
        self.findings = spool.parent / f"{spool.name}.ndjson"
        environment = {
            "DICOM__BIND": "127.0.0.1:0", "HTTP__BIND": "127.0.0.1:0", "SPOOL__DIR": str(spool),
            "MODELS__DIR": str(ROOT / "models"), "BROKER__KIND": "file", "BROKER__FILE": str(self.findings),
            "LOG__FORMAT": "json", **settings,
        }
        env = os.environ | {f"PACS_GATEWAY__{key}": value for key, value in environment.items()}
        env.setdefault("ORT_DYLIB_PATH", str(ROOT / ".deps/onnxruntime/lib/libonnxruntime.so"))
        started = time.perf_counter()
        self.process = subprocess.Popen([binary, "serve"], env=env, stderr=subprocess.PIPE, text=True, cwd=spool.parent)
        for line in self.process.stderr:
            if '"gateway is ready"' in line:
                ready = json.loads(line)
                break
        else:
            sys.exit("the gateway did not start")
        self.ready_after = time.perf_counter() - started
        self.port, self.http = ready["dicom_port"], ready["http_port"]
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def get(self, path: str) -> dict:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}") as answer:
            return json.load(answer)

    def cpu(self) -> float:
        return cpu_seconds(self.process.pid)

    def peak_rss_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def send(port: int, folders: list[Path], title: str = "PACSGATEWAY") -> float:
    """One dcmsend per folder, at the same time. Returns seconds."""
    started = time.perf_counter()
    senders = [
        subprocess.Popen(["dcmsend", "-q", "-aec", title, "127.0.0.1", str(port), "+sd", str(folder)])
        for folder in folders
    ]
    if any(sender.wait() for sender in senders):
        sys.exit("dcmsend failed")
    return time.perf_counter() - started


def expect_stored(gateway: "Gateway", count: int) -> None:
    """dcmsend ends well even when instances were refused."""
    wait_for(lambda: sum(study["instances_received"] for study in gateway.get("/api/v1/studies?limit=10000")["studies"]) >= count, 30)


def fresh(folder: Path) -> Path:
    """A new folder beside `folder`. Nothing is deleted between runs: ext4 looks long for an inode after deletions."""
    return Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))


def disk(folder: Path, size: int, count: int, threads: int, rename: bool) -> float:
    """Files per second that the disk takes when each is written and synced."""
    folder = fresh(folder)
    directory = os.open(folder, os.O_RDONLY)
    data = os.urandom(size)

    def work(first: int) -> None:
        for n in range(first, count, threads):
            name = folder / f"{n}.part"
            fd = os.open(name, os.O_CREAT | os.O_WRONLY)
            os.write(fd, data)
            os.fdatasync(fd)
            os.close(fd)
            if rename:
                os.rename(name, folder / f"{n}")
                os.fsync(directory)

    workers = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
    started = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    elapsed = time.perf_counter() - started
    os.close(directory)
    return count / elapsed


def storescp(work: Path, folders: list[Path]) -> tuple[float, float]:
    """Seconds and CPU seconds of DCMTK's storescp for the same files."""
    received = fresh(work / "storescp")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    peer = subprocess.Popen(["storescp", "-q", "+B", "+xa", "--fork", "-od", str(received), str(port)]
                            if len(folders) > 1 else ["storescp", "-q", "+B", "+xa", "-od", str(received), str(port)])
    while subprocess.run(["echoscu", "-q", "127.0.0.1", str(port)], stderr=subprocess.DEVNULL).returncode:
        time.sleep(0.05)
    before = cpu_seconds(peer.pid)
    elapsed = send(port, folders, "STORESCP")
    cpu = cpu_seconds(peer.pid) - before
    peer.kill()
    peer.wait()
    return elapsed, cpu


def lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


def wait_for(condition, seconds: float = 120, every: float = 0.005):
    deadline = time.perf_counter() + seconds
    while not (answer := condition()):
        if time.perf_counter() > deadline:
            sys.exit("the gateway did not finish in time")
        time.sleep(every)
    return answer


def median(measure, times: int = 3):
    """The median run of several: machines are noisy."""
    return sorted(measure() for _ in range(times))[times // 2]


def ingest(binary: str, work: Path, count: int) -> None:
    print(f"\n## Ingest: {count} uncompressed CT slices of 512×512, DCMTK dcmsend, durable before the response\n")
    source = work / "ct"
    slices(source, count)
    files = sorted(source.iterdir())
    size = files[0].stat().st_size
    total_mb = size * count / 1e6
    print("| associations | gateway files/s | MB/s | disk files/s | ratio | storescp files/s | ratio | CPU s/GB | storescp CPU s/GB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for associations in (1, 8, 16):
        folders = []
        for n in range(associations):
            folder = work / f"part-{associations}-{n}"
            folder.mkdir()
            for file in files[n::associations]:
                (folder / file.name).hardlink_to(file)
            folders.append(folder)

        def once() -> tuple[float, float]:
            spool = fresh(work / "spool")
            gateway = Gateway(binary, spool, STUDY__QUIET_PERIOD="1h", STUDY__MAX_AGE="2h")
            before = gateway.cpu()
            elapsed = send(gateway.port, folders)
            cpu = gateway.cpu() - before
            expect_stored(gateway, count)
            gateway.stop()
            return elapsed, cpu

        baseline = median(lambda: disk(work / "disk", size, count, associations, rename=associations > 1))
        elapsed, cpu = median(once)
        peer, peer_cpu = storescp(work, folders)
        # With --fork the work is done in children that are gone; their CPU time is not read.
        shown = f"{peer_cpu / total_mb * 1e3:.2f}" if associations == 1 else "–"
        print(f"| {associations} | {count / elapsed:.0f} | {total_mb / elapsed:.0f} | {baseline:.0f} | {count / elapsed / baseline:.2f} "
              f"| {count / peer:.0f} | {peer / elapsed:.1f} | {cpu / total_mb * 1e3:.2f} | {shown} |")


def memory(binary: str, work: Path, count: int) -> None:
    source = work / "ct"
    spool = fresh(work / "spool")
    gateway = Gateway(binary, spool, STUDY__QUIET_PERIOD="500ms")
    for _ in range(count // len(list(source.iterdir()))):
        for file in source.iterdir():
            ds = pydicom.dcmread(file)
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            ds.save_as(file)
        send(gateway.port, [source])
    expect_stored(gateway, count)
    received = gateway.get("/api/v1/studies")["studies"][0]["instances_received"]
    print(f"\n## Memory\n\nPeak RSS after {received} CT slices of one study, models loaded: {gateway.peak_rss_mb():.0f} MB")
    gateway.stop()
    gateway = Gateway(binary, spool)
    print(f"Restart with {received} spooled instances: ready after {gateway.ready_after:.2f} s, models loaded and warmed up")
    gateway.stop()


def pipeline(binary: str, work: Path, count: int) -> None:
    """Many one-image studies that are on disk already, against onnxruntime on tensors that are ready."""
    source = work / "dx"
    slices(source, count, rows=256, dx=True, studies=count)
    spool = fresh(work / "spool")
    gateway = Gateway(binary, spool, STUDY__QUIET_PERIOD="1h", STUDY__MAX_AGE="2h")
    send(gateway.port, [source])
    expect_stored(gateway, count)
    gateway.stop()
    # Numbers only: a picture costs a hundred samples.
    gateway = Gateway(binary, spool, STUDY__QUIET_PERIOD="0s", STUDY__CONCURRENCY="64", ARTEFACTS__MAX_BYTES="0B")
    started = time.perf_counter()
    wait_for(lambda: lines(gateway.findings) >= count, every=0.05)
    elapsed = time.perf_counter() - started
    gateway.stop()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    model = next((ROOT / "models/cxr-phantom").glob("*/model.onnx"))
    best = 0.0
    for batch in (1, 2, 4, 8, 16):
        cores = os.cpu_count() or 1
        sessions = [onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]) for _ in range(cores)]
        tensor = np.zeros((batch, 1, 128, 128), np.float32)
        runs = max(1, count // batch // cores)

        def work_of(session: onnxruntime.InferenceSession) -> None:
            for _ in range(runs):
                session.run(None, {session.get_inputs()[0].name: tensor})

        began = time.perf_counter()
        threads = [threading.Thread(target=work_of, args=(session,)) for session in sessions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        best = max(best, runs * batch * cores / (time.perf_counter() - began))
    print(f"\n## Pipeline: {count} studies of one 256×256 image, spooled before the start, cxr-phantom\n")
    print("| what | images/s | ratio |\n|---|---|---|")
    print(f"| onnxruntime alone, tensors ready, best batch size | {best:.0f} | 1.00 |")
    print(f"| gateway: read, decode, infer, message, ledger, file | {count / elapsed:.0f} | {count / elapsed / best:.2f} |")


def isolation(work: Path, count: int) -> None:
    """What decoding in processes of its own costs; benches/workers.rs measures, the files are made here."""
    native, compressed = work / "uncompressed", work / "JPEG-LS lossless"
    slices(native, count)
    compressed.mkdir()
    y, x = np.mgrid[0:512, 0:512]
    for file in sorted(native.iterdir()):
        ds = pydicom.dcmread(file)
        pixels = 1000 + 900 * np.sin(x / 40) * np.cos(y / 30) + ds.pixel_array % 32
        ds.PixelData = pixels.astype(np.uint16).tobytes()
        ds.compress(JPEGLSLossless, encoding_plugin="pyjpegls")
        ds.save_as(compressed / file.name)
    print(f"\n## Decoding 512x512 CT in processes of its own, against the same in one process ({count} files)\n", flush=True)
    subprocess.run(["cargo", "bench", "--quiet", "--bench", "workers", "--", str(native), str(compressed)], check=True, cwd=ROOT)


def confirmed_study(gateway: Gateway, uid: str) -> dict | None:
    try:
        study = gateway.get(f"/api/v1/studies/{uid}")
    except OSError:
        return None
    return study if study["state"] == "done" and study["confirmed"] else None


def latency(binary: str, work: Path, count: int) -> None:
    source = work / "one"
    slices(source, count, rows=256, dx=True, studies=count)
    spool = fresh(work / "spool")
    gateway = Gateway(binary, spool, STUDY__QUIET_PERIOD="200ms")
    waits = []
    for file in sorted(source.iterdir()):
        uid = str(pydicom.dcmread(file, stop_before_pixels=True).StudyInstanceUID)
        subprocess.run(["dcmsend", "-q", "-aec", "PACSGATEWAY", "127.0.0.1", str(gateway.port), str(file)], check=True)
        study = wait_for(lambda: confirmed_study(gateway, uid))
        received, confirmed = (np.datetime64(text.rstrip("Z")) for text in (study["received_last"], study["messages"][0]["confirmed"]))
        waits.append((confirmed - received) / np.timedelta64(1, "ms") - 200)
    gateway.stop()
    p50, p99 = np.percentile(waits, [50, 99])
    print(f"\n## Latency: last C-STORE response to the broker's confirm (file), without the quiet period, {count} studies\n")
    print(f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, decoding and inference included")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("binary")
    arguments.add_argument("--quick", action="store_true", help="a tenth of the work, to see that it runs")
    arguments = arguments.parse_args()
    scale = 10 if arguments.quick else 1
    binary = str(Path(arguments.binary).resolve())
    # The spool must be on a disk: /tmp may be memory.
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-") as folder:
        work = Path(folder)
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start")
        ingest(binary, work, 400 // scale)
        memory(binary, work, 3200 // scale)
        pipeline(binary, work, 1000 // scale)
        isolation(work, 400 // scale)
        latency(binary, work, 50 // scale)


if __name__ == "__main__":
    main()
