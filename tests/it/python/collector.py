"""An OTLP collector of grpcio and the opentelemetry-proto messages, independent of the gateway.

    collector.py grpc|http FILE [CERTIFICATE KEY]

Says `port N` when it listens, and appends every span to FILE, one JSON object per line. Lines on
standard input change how it behaves: `take`, `refuse` (not to be tried again), `busy` (to be tried
again), `hang` (no answer at all).
"""

import json
import ssl
import sys
import threading
import time
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

protocol, path = sys.argv[1:3]
identity = sys.argv[3:5]
behaviour = "take"
lock = threading.Lock()


def value(any_value):
    return getattr(any_value, any_value.WhichOneof("value"))


def attributes(pairs):
    return {pair.key: value(pair.value) for pair in pairs}


def keep(request):
    with lock, open(path, "a", encoding="utf-8") as file:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    line = {
                        "resource": attributes(resource.resource.attributes),
                        "scope": scope.scope.name,
                        "trace_id": span.trace_id.hex(),
                        "span_id": span.span_id.hex(),
                        "parent": span.parent_span_id.hex(),
                        "flags": span.flags,
                        "name": span.name,
                        "kind": span.kind,
                        "start": span.start_time_unix_nano,
                        "end": span.end_time_unix_nano,
                        "attributes": attributes(span.attributes),
                        "status": span.status.code,
                        "message": span.status.message,
                    }
                    file.write(json.dumps(line) + "\n")


class Service(trace_service_pb2_grpc.TraceServiceServicer):
    def Export(self, request, context):
        if behaviour == "hang":
            time.sleep(3600)
        if behaviour == "refuse":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not wanted")
        if behaviour == "busy":
            context.abort(grpc.StatusCode.UNAVAILABLE, "later")
        keep(request)
        return trace_service_pb2.ExportTraceServiceResponse()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if behaviour == "hang":
            time.sleep(3600)
        status = {"take": 200, "refuse": 400, "busy": 503}[behaviour]
        if self.path != "/v1/traces" or self.headers["content-type"] != "application/x-protobuf":
            status = 404
        if status == 200:
            keep(trace_service_pb2.ExportTraceServiceRequest.FromString(body))
        answer = trace_service_pb2.ExportTraceServiceResponse().SerializeToString()
        self.send_response(status)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


if protocol == "grpc":
    server = grpc.server(futures.ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Service(), server)
    if identity:
        certificate, key = (open(file, "rb").read() for file in identity)
        credentials = grpc.ssl_server_credentials([(key, certificate)])
        port = server.add_secure_port("127.0.0.1:0", credentials)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
else:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if identity:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*identity)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()

print(f"port {port}", flush=True)
for line in sys.stdin:
    behaviour = line.strip()
    print(f"now {behaviour}", flush=True)
