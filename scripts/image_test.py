"""Runs the container image as an operator would, and fails when it does not do what docs/operations.md says.

    scripts/image_test.py IMAGE ENGINE...      what scripts/image.sh test calls; ENGINE is docker or podman, with its options

Each container is as confined as on a cluster with restricted Pod Security: the image's own user, no capabilities, no new
privileges, the root file system read only, nothing writable but the volume. It uses the host's network and free ports.
DCMTK's echoscu and dcmsend are the senders where they are installed, the binary of another container elsewhere.
PACS_GATEWAY_TEST_AMQP_URL names a RabbitMQ to publish to; without it findings go to a file on the volume.
The engine must be one of this machine's own: processes are looked at from outside. Standard library only.
"""

import hashlib
import io
import json
import os
import pathlib
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import uuid

ROOT = pathlib.Path(__file__).resolve().parent.parent
VOLUME = "/var/lib/pacs-gateway"
BINARY = "/usr/local/bin/pacs-gateway"
STUDIES = sorted((ROOT / "models").glob("*/1.0.0/golden/*"))
# Longer than [shutdown] adds up to, as the run book asks for.
GRACE = 40
# Nothing that builds, and nothing that interprets, belongs into the image. The base brings a shell and perl.
TOOLS = re.compile(
    r"(^|/)(cc|gcc|g\+\+|c\+\+|ld|as|make|cmake|nasm|cargo|rustc|rustup|pip3?|python3?[\d.]*|git|curl|wget)(-[\d.]+)?$"
)

image, engine = sys.argv[1], sys.argv[2:]
token = secrets.token_hex(16)
volumes, containers = [], []


def check(holds, what):
    if not holds:
        raise SystemExit(f"image: FAILED: {what}")
    print(f"image: {what}", flush=True)


def call(*args, timeout=120, ok=True, text=True):
    done = subprocess.run([*engine, *args], capture_output=True, text=text, timeout=timeout)
    if ok and done.returncode != 0:
        raise SystemExit(f"image: FAILED: {' '.join([*engine, *args])}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def until(what, question, seconds=60):
    """Asks until there is an answer."""
    deadline = time.monotonic() + seconds
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > deadline:
            logs = call("logs", containers[-1], ok=False) if containers else None
            raise SystemExit(f"image: FAILED: no {what} within {seconds} s\n{logs and logs.stdout + logs.stderr}")
        time.sleep(0.2)


def volume():
    """A new volume, which the engine fills from the image: its folder, with its owner."""
    name = f"pacs-gateway-image-test-{uuid.uuid4().hex[:8]}"
    call("volume", "create", name)
    volumes.append(name)
    return name


def confined(mounted, network, *options):
    """Arguments of `run` for a container that may write to one volume."""
    # Podman mounts writable memory over /tmp and others unless told not to; Docker does not.
    strict = ["--read-only-tmpfs=false"] if "podman" in pathlib.Path(engine[0]).name else []
    return [
        "run", "--read-only", *strict, "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", network,
        "--volume", f"{mounted}:{VOLUME}", *options, image,
    ]  # fmt: skip


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(port, path):
    """Status and body; none while nobody listens."""
    try:
        asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(asked, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as err:
        return err.code, err.read().decode()
    except OSError:
        return None


def inspect(name, kind="container"):
    return json.loads(call("inspect", "--type", kind, name).stdout)[0]


def children(pid):
    """Processes below this one, as (pid, state, command line), from the host's side."""
    found = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            name, fields = stat.read_text().rsplit(")", 1)
            command = (stat.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        state, parent = fields.split()[:2]
        if int(parent) == pid:
            found.append((int(stat.parent.name), state, command))
    return found


def what_it_says():
    """The image's configuration, and its size."""
    told = inspect(image, "image")
    config = told["Config"]
    check(config["User"] == "10001:10001", "runs as 10001:10001")
    check(config["Entrypoint"] == [BINARY] and config["Cmd"] == ["serve"], f"starts {BINARY} serve, with no shell between")
    ports = {f"{port}/tcp" for port in (11112, 2762, 8080, 9090)}
    check(set(config["ExposedPorts"]) == ports, "exposes 11112, 2762, 8080 and 9090")
    check(list(config["Volumes"]) == [VOLUME], f"has one volume, {VOLUME}")
    check(config.get("StopSignal", "SIGTERM") in ("SIGTERM", "15"), "is stopped by SIGTERM")
    labels = config["Labels"]
    wanted = {f"org.opencontainers.image.{name}" for name in ("title", "description", "licenses", "version", "revision")}
    check(wanted <= set(labels), f"is labelled, version {labels['org.opencontainers.image.version']}")
    print(f"image: {told['Size'] / 1e6:.1f} MB unpacked")


def what_it_holds():
    """The files: nothing to build with, the pinned library, the volume's owner."""
    container = call("create", image).stdout.strip()
    containers.append(container)
    exported = tarfile.open(fileobj=io.BytesIO(call("export", container, text=False).stdout))
    members = {member.name.lstrip("./"): member for member in exported}
    tools = sorted(name for name, member in members.items() if TOOLS.search(name) and not member.isdir())
    check(not tools, f"holds no build tools {tools or ''}")
    library = hashlib.sha256(exported.extractfile(members["usr/local/lib/libonnxruntime.so"]).read()).hexdigest()
    check(library in (ROOT / "scripts/setup.sh").read_text(), "holds the ONNX Runtime that scripts/setup.sh pins")
    owner = members[VOLUME.lstrip("/")]
    check((owner.uid, owner.gid) == (10001, 10001), f"{VOLUME} belongs to its user")
    foreign = [name for name, member in members.items() if member.uid == 10001 and not name.startswith(VOLUME.lstrip("/"))]
    check(not foreign, f"nothing else does {foreign or ''}")
    for folder in ("usr/share/doc/pacs-gateway/crates", "usr/share/doc/onnxruntime"):
        check(any(name.startswith(folder + "/") for name in members), f"holds the licences in /{folder}")
    for name in ("usr/local/bin/pacs-gateway", "usr/local/lib/libonnxruntime.so"):
        print(f"image: {members[name].size / 1e6:.1f} MB /{name}")


def demo():
    """The demo scenario, without a network."""
    done = call(*confined(volume(), "none", "--rm"), "demo", timeout=300, ok=False)
    print(done.stdout)
    check(done.returncode == 0, f"demo ends with 0 {done.stderr}")
    for model in sorted(path.parent.name for path in ROOT.glob("models/*/model.toml")):
        check(re.search(rf"^{model}/\S+ +{model} ", done.stdout, re.M), f"demo shows findings of {model}")


def refusal():
    """A configuration of one's own is read, and a wrong one is named."""
    with tempfile.TemporaryDirectory() as folder:
        wrong = pathlib.Path(folder, "gateway.toml")
        wrong.write_text('[spool]\ndirectory = "/data"\n')
        wrong.chmod(0o644)
        pathlib.Path(folder).chmod(0o755)
        mount = f"{wrong}:/etc/pacs-gateway/gateway.toml:ro"
        done = call(*confined(volume(), "none", "--rm", "--volume", mount), "serve", ok=False)
        check(done.returncode == 64 and "spool.directory" in done.stderr, f"refuses a wrong file with 64: {done.stderr.strip()}")


def start(mounted, dicom, http):
    """Starts `serve`; its name and how long it took to be ready."""
    environment = {
        "DICOM__BIND": f"127.0.0.1:{dicom}",
        "HTTP__BIND": f"127.0.0.1:{http}",
        "HTTP__READ_TOKENS": token,
        "STUDY__QUIET_PERIOD": "1s",
    }
    url = os.environ.get("PACS_GATEWAY_TEST_AMQP_URL")
    if url:
        names = {"BROKER__EXCHANGE": mounted, "BROKER__QUEUE": mounted, "BROKER__SHADOW": f"{mounted}.shadow"}
        environment |= {"BROKER__URL": url, **names}
    else:
        environment |= {"BROKER__KIND": "file"}
    variables = [part for name, value in environment.items() for part in ("--env", f"PACS_GATEWAY__{name}={value}")]
    began = time.monotonic()
    name = call(*confined(mounted, "host", "--detach", *variables)).stdout.strip()
    containers.append(name)
    until("readiness", lambda: (get(http, "/readyz") or (0,))[0] == 200)
    return name, time.monotonic() - began


def studies(http):
    answered = get(http, "/api/v1/studies")
    return json.loads(answered[1])["studies"] if answered and answered[0] == 200 else []


def send(mounted, dicom, folders):
    """A C-ECHO and studies, from outside."""
    files = [path for folder in folders for path in sorted(folder.glob("*.dcm"))]
    if shutil.which("echoscu") and shutil.which("dcmsend"):
        peer = ["-aec", "PACSGATEWAY", "127.0.0.1", str(dicom)]
        commands = [["echoscu", *peer], ["dcmsend", "-aet", "DR1", *peer, *map(str, files)]]
    else:
        own, peer = [*engine, *confined(mounted, "host", "--rm")], ["--to", f"PACSGATEWAY@127.0.0.1:{dicom}"]
        inside = [f"/opt/pacs-gateway/{path.relative_to(ROOT)}" for path in files]
        commands = [[*own, "echo", *peer], [*own, "send", *peer, *inside]]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        tool = "its own client" if command[0] == engine[0] else command[0]
        check(done.returncode == 0, f"answers {tool} {done.stderr if done.returncode else ''}")


def stop(name):
    began = time.monotonic()
    call("stop", "--time", str(GRACE), name)
    code, took = inspect(name)["State"]["ExitCode"], time.monotonic() - began
    check(code == 0 and took < GRACE, f"SIGTERM ends it with {code} after {took:.1f} s")


def serve():
    """Receives, publishes, loses its children, is stopped and goes on."""
    mounted, dicom, http = volume(), free_port(), free_port()
    name, took = start(mounted, dicom, http)
    check(True, f"serve is ready after {took:.1f} s, golden cases included, with one volume to write to")
    labels, metrics = inspect(image, "image")["Config"]["Labels"], get(http, "/metrics")[1]
    told = [f'{name}="{labels[f"org.opencontainers.image.{name}"]}"' for name in ("version", "revision")]
    check(all(pair in metrics for pair in told), f"build_info has {' and '.join(told)}")

    def published(count):
        """All of these studies, published and confirmed."""
        return until(f"{count} confirmed studies", lambda: [study["state"] for study in studies(http)] == ["done"] * count)

    send(mounted, dicom, STUDIES[:1])
    published(1)
    broker = "RabbitMQ" if "PACS_GATEWAY_TEST_AMQP_URL" in os.environ else "the file"
    check(True, f"has the study published and confirmed by {broker}")

    pid = inspect(name)["State"]["Pid"]
    namespaces = re.search(r"^NSpid:(.*)$", pathlib.Path(f"/proc/{pid}/status").read_text(), re.M)[1].split()
    workers = {worker for worker, _, command in children(pid) if "worker" in command}
    check(namespaces[-1] == "1", "is process 1 of its container")
    check(workers and len(workers) == len(children(pid)), f"has {len(workers)} workers below it and no other process")
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    half = len(STUDIES) // 2
    send(mounted, dicom, STUDIES[1:half])
    published(half)
    # A worker that dies idle is found, and collected, when it is wanted next; those of a second session may not have been.
    dead = {child for child, state, _ in children(pid) if state == "Z"}
    check(len(dead) < len(workers) and dead <= workers, f"has {half} studies published after its workers were killed")
    print(f"image: {len(dead)} of {len(workers)} killed workers are not collected yet")

    send(mounted, dicom, STUDIES[half:])
    stop(name)
    name, _ = start(mounted, dicom, http)
    published(len(STUDIES))
    check(True, f"has all {len(STUDIES)} published, the last of them sent right before a stop and a start on the same volume")
    asked = call("exec", name, BINARY, "study", "ls").stdout
    check(asked.count(" done ") == len(STUDIES), "answers `study ls` from inside, which finds port and token by itself")
    stop(name)


def main():
    try:
        for step in (what_it_says, what_it_holds, refusal, demo, serve):
            step()
    finally:
        for name in containers:
            call("rm", "--force", "--volumes", name, ok=False)
        for name in volumes:
            call("volume", "rm", name, ok=False)
    print("image: all of it holds")


main()
