"""What the benchmarks share: images of noise, the gateway as a process, a sender, and waiting."""

import argparse
import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

ROOT = Path(__file__).resolve().parent.parent
CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
DX_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.1.1"


def arguments(description: str) -> tuple[str, int]:
    """The binary, and what to divide the amount of work by."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("binary")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, to see that it runs")
    parsed = parser.parse_args()
    return str(Path(parsed.binary).resolve()), 10 if parsed.quick else 1


@contextlib.contextmanager
def workplace():
    """A folder on the disk of the repository: /tmp may be memory, and a spool must be on a disk."""
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-") as folder:
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start")
        yield Path(folder)


def slices(
    folder: Path, count: int, rows: int = 512, dx: bool = False, studies: int = 1, stat: bool = False, modality: str = "DX", fill: int | None = None
) -> None:
    """Writes `count` uncompressed images; the content is noise, so that nothing compresses or repeats, or one value."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(7)
    study_uids = [generate_uid() for _ in range(studies)]
    series_uids = [generate_uid() for _ in range(studies)]
    for n in range(count):
        ds = pydicom.Dataset()
        ds.SOPClassUID = DX_IMAGE_STORAGE if dx else CT_IMAGE_STORAGE
        ds.SOPInstanceUID = generate_uid()
        ds.StudyInstanceUID, ds.SeriesInstanceUID = study_uids[n % studies], series_uids[n % studies]
        ds.Modality, ds.InstanceNumber = (modality, 1) if dx else ("CT", n + 1)
        ds.PatientName, ds.PatientID = "PHANTOM^BENCH", "PHANTOM-1"
        if dx:
            ds.BodyPartExamined, ds.ViewPosition = "CHEST", "PA"
            ds.WindowCenter, ds.WindowWidth = 2048, 4096
        if stat:
            ds.RequestedProcedurePriority = "STAT"
        ds.Rows = ds.Columns = rows
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.RescaleSlope, ds.RescaleIntercept = 1, 0
        pixels = rng.integers(0, 4096, (rows, rows), dtype=np.uint16) if fill is None else np.full((rows, rows), fill, np.uint16)
        ds.PixelData = pixels.tobytes()
        ds.file_meta = pydicom.dataset.FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.save_as(folder / f"{n:05}.dcm", enforce_file_format=True)


def renamed(folder: Path) -> None:
    """Gives every file another SOP Instance UID of the same length, in place."""
    for file in folder.iterdir():
        old = str(pydicom.dcmread(file, specific_tags=["SOPInstanceUID"], stop_before_pixels=True).SOPInstanceUID)
        new = old[:-15] + f"{secrets.randbelow(10**15):015}"
        file.write_bytes(file.read_bytes().replace(old.encode(), new.encode()))


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
        self.port, self.tls_port, self.http = ready["dicom_port"], ready.get("dicom_tls_port"), ready["http_port"]
        self.token = (spool / "operator.token").read_text().strip()
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def get(self, path: str) -> dict:
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/metrics") as answer:
            return answer.read().decode()

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


def lines(file: Path, that_hold: str = "") -> int:
    """Whole lines that hold a text."""
    return sum(line.endswith(b"\n") and that_hold.encode() in line for line in file.read_bytes().splitlines(keepends=True)) if file.exists() else 0


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
