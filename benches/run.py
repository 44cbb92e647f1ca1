"""Measures reception, memory and decoding beside real peers in one run, and prints tables with ratios.

Usage: run.py GATEWAY_BINARY [--quick]

Everything runs on this machine: senders and receivers share its cores. Peers: DCMTK storescp for ingest, the bare disk
(write + fdatasync) for durability. benches/models.py does the same for models. Nothing here is asserted: a number that
falls short is printed like any other.
"""

import os
import shutil
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import JPEGLSLossless

from harness import ROOT, Gateway, arguments, cpu_seconds, expect_stored, fresh, median, renamed, send, slices, wait_for, workplace


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


@contextmanager
def storescp(work: Path, *options: str, ask: tuple[str, ...] = ()):
    """DCMTK's storescp, with the port it listens on, once it answers an echoscu with the options `ask`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    peer = subprocess.Popen(["storescp", "-q", "+B", "+xa", *options, "-od", str(fresh(work / "storescp")), str(port)])
    while subprocess.run(["echoscu", "-q", *ask, "127.0.0.1", str(port)], stderr=subprocess.DEVNULL).returncode:
        time.sleep(0.05)
    try:
        yield port, peer.pid
    finally:
        peer.kill()
        peer.wait()


def ingest_by_storescp(work: Path, folders: list[Path]) -> tuple[float, float]:
    """Seconds and CPU seconds of DCMTK's storescp for the same files."""
    with storescp(work, *(["--fork"] if len(folders) > 1 else [])) as (port, pid):
        before = cpu_seconds(pid)
        elapsed = send(port, folders, "STORESCP")
        return elapsed, cpu_seconds(pid) - before


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
        peer, peer_cpu = ingest_by_storescp(work, folders)
        # With --fork the work is done in children that are gone; their CPU time is not read.
        shown = f"{peer_cpu / total_mb * 1e3:.2f}" if associations == 1 else "–"
        print(f"| {associations} | {count / elapsed:.0f} | {total_mb / elapsed:.0f} | {baseline:.0f} | {count / elapsed / baseline:.2f} "
              f"| {count / peer:.0f} | {peer / elapsed:.1f} | {cpu / total_mb * 1e3:.2f} | {shown} |")


def transport(binary: str, work: Path, count: int) -> None:
    """What TLS costs: the same files over one association without and with it, to the gateway and to storescp."""
    source = work / "ct"
    total_gb = sum(file.stat().st_size for file in source.iterdir()) / 1e9
    key, certificate = work / "key.pem", work / "certificate.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(key),
                    "-out", str(certificate), "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
                   check=True, stderr=subprocess.DEVNULL)
    # Without a certificate of the client.
    secure = ("+tla", "+cf", str(certificate))

    def storescu(port: int, pid: int, options: tuple[str, ...]) -> tuple[float, float]:
        before, started = cpu_seconds(pid), time.perf_counter()
        subprocess.run(["storescu", "-q", *options, "+sd", "127.0.0.1", str(port), str(source)], check=True)
        return time.perf_counter() - started, cpu_seconds(pid) - before

    def gateway(options: tuple[str, ...]) -> tuple[float, float]:
        receiver = Gateway(binary, fresh(work / "spool"), STUDY__QUIET_PERIOD="1h", STUDY__MAX_AGE="2h", DICOM__TLS__BIND="127.0.0.1:0",
                           DICOM__TLS__CERTIFICATE=str(certificate), DICOM__TLS__KEY=str(key), DICOM__TLS__CLIENT_CERTIFICATE="none")
        taken = storescu(receiver.tls_port if options else receiver.port, receiver.process.pid, options)
        expect_stored(receiver, count)
        receiver.stop()
        return taken

    def peer(options: tuple[str, ...]) -> tuple[float, float]:
        server = ("+tls", str(key), str(certificate), "-ic") if options else ()
        with storescp(work, *server, ask=options) as (port, pid):
            return storescu(port, pid, options)

    print(f"\n## TLS: {count} CT slices of 512×512, one DCMTK storescu\n\n"
          "| receiver | plain s | TLS s | ratio | CPU s/GB plain | CPU s/GB TLS |\n|---|---|---|---|---|---|")
    for name, receive in (("gateway", gateway), ("storescp", peer)):
        (plain, cpu), (tls, tls_cpu) = (median(lambda: receive(options)) for options in ((), secure))
        print(f"| {name} | {plain:.2f} | {tls:.2f} | {tls / plain:.2f} | {cpu / total_gb:.2f} | {tls_cpu / total_gb:.2f} |", flush=True)


def memory(binary: str, work: Path, count: int) -> None:
    source = work / "ct"
    spool = fresh(work / "spool")
    gateway = Gateway(binary, spool, STUDY__QUIET_PERIOD="500ms")
    for _ in range(count // len(list(source.iterdir()))):
        renamed(source)
        send(gateway.port, [source])
    expect_stored(gateway, count)
    received = gateway.get("/api/v1/studies")["studies"][0]["instances_received"]
    wait_for(lambda: gateway.get("/api/v1/studies")["studies"][0]["state"] == "done")
    print(f"\n## Memory\n\nPeak RSS after {received} CT slices of one study, received, assembled and answered, models loaded: {gateway.peak_rss_mb():.0f} MB")
    gateway.stop()


def restart(binary: str, work: Path, count: int) -> None:
    """Seconds until a gateway with a full spool is ready. The page cache is warm; with the smallest model, and with all."""
    source = work / "ct"
    spool, models = fresh(work / "spool"), fresh(work / "models")
    shutil.copytree(ROOT / "models/wdbc-forest", models / "wdbc-forest")
    waiting = {"STUDY__QUIET_PERIOD": "1h", "STUDY__MAX_AGE": "2h", "MODELS__DIR": str(models)}
    gateway = Gateway(binary, spool, **waiting)
    files = len(list(source.iterdir()))
    for _ in range(count // files):
        renamed(source)
        send(gateway.port, [source])
    received = count // files * files
    gateway.process.kill()
    gateway.process.wait()
    print(f"\n## Restart with {received} spooled instances of 512×512\n\n| after | models | ready after s |\n|---|---|---|")

    def show(what: str, models: str, **settings: str) -> None:
        gateway = Gateway(binary, spool, **waiting | settings)
        # The gauge is set once a second.
        wait_for(lambda: f"\npacs_gateway_spool_instances {received}\n" in gateway.metrics(), 10)
        print(f"| {what} | {models} | {gateway.ready_after:.2f} |", flush=True)
        gateway.stop()

    show("kill -9 at the last response", "the smallest")
    for _ in range(3):
        show("a stop", "the smallest")
    (spool / "watermark").unlink()
    show("kill -9 while one sender had stalled from the beginning: all data sets are checked against their SHA-256", "the smallest")
    show("a stop", "the four of the repository", MODELS__DIR=str(ROOT / "models"))
    empty = fresh(work / "spool")
    gateway = Gateway(binary, empty)
    print(f"| a stop, with an empty spool | the four of the repository | {gateway.ready_after:.2f} |")
    gateway.stop()


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


def main() -> None:
    binary, scale = arguments(__doc__)
    with workplace() as work:
        ingest(binary, work, 400 // scale)
        transport(binary, work, 400 // scale)
        memory(binary, work, 3200 // scale)
        restart(binary, work, 10_000 // scale)
        isolation(work, 400 // scale)


if __name__ == "__main__":
    main()
