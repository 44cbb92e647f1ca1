"""A Storage Commitment SCU made of pynetdicom.

    commitment_peer.py request PORT JSON   one N-ACTION per entry of JSON, on one association
    commitment_peer.py listen PORT AE      a node that takes reports, until it is ended; with TLS when PEER_TLS is set

Prints one JSON object per line: {"action": STATUS} for each response, {"event": ...} for each report, {"ready": PORT} when
the node listens, {"rejected": true} when the presentation context was not accepted.

JSON: {"ae", "requests": [{"transaction", "references": [[class, instance], ...]}], and optionally "sop_class", "sop_instance",
"action_type" of the requests; "events": how many reports to wait for on the association; "answer": the status they get}.
"""

import json
import sys
import threading

import steady
import tls
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel

INSTANCE = "1.2.840.10008.1.20.1.1"
PATIENCE = 30


def say(what):
    print(json.dumps(what), flush=True)


def references(data_set, keyword):
    items = data_set.get(keyword)
    return [] if items is None else [[str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID)] for item in items]


def described(event):
    data_set, association = event.event_information, event.assoc
    role = association.requestor.role_selection.get(StorageCommitmentPushModel)
    failed = data_set.get("FailedSOPSequence") or []
    return {
        "type": event.event_type,
        "sop_class": str(event.request.AffectedSOPClassUID),
        "sop_instance": str(event.request.AffectedSOPInstanceUID),
        "transaction": str(data_set.TransactionUID),
        "committed": references(data_set, "ReferencedSOPSequence"),
        "failed": references(data_set, "FailedSOPSequence"),
        "reasons": [f"{item.FailureReason:04X}" for item in failed],
        "calling": association.requestor.ae_title,
        "called": association.acceptor.ae_title,
        "roles": role and [role.scu_role, role.scp_role],
        "elements": [element.keyword for element in data_set],
    }


def request(port, order):
    heard = threading.Semaphore(0)

    def handle(event):
        say({"event": described(event)})
        heard.release()
        return order.get("answer", 0x0000), None

    entity = AE(ae_title=order["ae"])
    entity.add_requested_context(StorageCommitmentPushModel)
    association = entity.associate(
        "127.0.0.1", port, ae_title="PACSGATEWAY", evt_handlers=[(evt.EVT_N_EVENT_REPORT, handle)]
    )
    if not association.is_established:
        say({"rejected": True})
        return
    for entry in order["requests"]:
        data_set = None
        if "transaction" in entry:
            data_set = Dataset()
            data_set.TransactionUID = entry["transaction"]
            data_set.ReferencedSOPSequence = []
            for sop_class, sop_instance in entry["references"]:
                item = Dataset()
                item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
                data_set.ReferencedSOPSequence.append(item)
        response, _ = association.send_n_action(
            data_set,
            order.get("action_type", 1),
            order.get("sop_class", StorageCommitmentPushModel),
            order.get("sop_instance", INSTANCE),
            meta_uid=StorageCommitmentPushModel,
        )
        say({"action": f"{response.Status:04X}" if "Status" in response else None})
    for _ in range(order.get("events", 0)):
        if not heard.acquire(timeout=PATIENCE):
            sys.exit("no report")
    association.release()


def listen(port, title):
    entity = AE(ae_title=title)
    entity.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)

    def handle(event):
        say({"event": described(event)})
        return 0x0000, None

    handlers = [(evt.EVT_N_EVENT_REPORT, handle)]
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers, ssl_context=tls.server())
    say({"ready": server.socket.getsockname()[1]})
    # The test closes our standard input when it ends, in whatever way.
    sys.stdin.read()
    server.shutdown()


def main():
    verb, port, rest = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    if verb == "request":
        request(port, json.loads(rest))
    else:
        listen(port, rest)


steady.install()
main()
