"""A PACS made of pynetdicom: it takes instances, and answers queries for studies as its HABIT has it.

    pacs.py HABIT

counts: Number of Study Related Instances with each match. omits: without it, as it is an optional key. disagrees: two
matches with two counts. floods: ignores the key and sends one match after the other. fails: C001. silent: never answers.
lingers: counts, and never confirms a release. Prints its port. With TLS when PEER_TLS is set.
"""

import sys
import threading

import tls
from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.pdu import A_RELEASE_RQ
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

HABIT = sys.argv[1]
STUDIES = {}


def store(event):
    data_set = event.dataset
    STUDIES.setdefault(data_set.StudyInstanceUID, set()).add(data_set.SOPInstanceUID)
    return 0x0000


def match(study, count):
    found = Dataset()
    found.QueryRetrieveLevel = "STUDY"
    found.StudyInstanceUID = study
    if HABIT != "omits":
        found.NumberOfStudyRelatedInstances = count
    return found


def find(event):
    asked = event.identifier
    assert asked.QueryRetrieveLevel == "STUDY" and "NumberOfStudyRelatedInstances" in asked
    study = asked.StudyInstanceUID
    if HABIT == "silent":
        threading.Event().wait()
    if HABIT == "fails":
        yield 0xC001, None
        return
    if HABIT == "floods":
        for number in range(1000):
            yield 0xFF00, match(f"1.2.{number}", 1)
        return
    instances = STUDIES.get(study)
    if instances:
        yield 0xFF00, match(study, len(instances))
        if HABIT == "disagrees":
            yield 0xFF00, match(study, len(instances) + 1)


def linger(event):
    if HABIT == "lingers" and isinstance(event.pdu, A_RELEASE_RQ):
        threading.Event().wait()


def main():
    entity = AE(ae_title="TESTPACS")
    entity.supported_contexts = AllStoragePresentationContexts
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    handlers = [(evt.EVT_C_STORE, store), (evt.EVT_C_FIND, find), (evt.EVT_PDU_RECV, linger)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers, ssl_context=tls.server())
    print(server.server_address[1], flush=True)
    threading.Event().wait()


main()
