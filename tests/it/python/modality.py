"""A modality made of pynetdicom that tells what it does: N-CREATE and N-SET of performed procedure steps.

    modality.py PORT FILE

FILE is a JSON list of operations, done in order on one association:

    {"create": UID or null, "status": TEXT or null, "studies": [UID...], "series": SERIES}
    {"set": UID, "status": TEXT or null, "series": SERIES, "reason": CODE}
    {"store": FILE}: a C-STORE, of a CT image in explicit VR little endian
    {"create": null, ..., "until": STATUS}: again and again until it is answered so, for half a minute at most
    {"raw": "create", "set" or "get", "class": UID, "instance": TEXT, "bytes": N or null}: a data set of N zeros, or none

SERIES is a list of lists of SOP Instance UIDs, or null for no sequence at all; an item {"root": UID, "count": N} stands
for UID.1 to UID.N. Prints a JSON list with the command set of each response: status, error_id, comment, instance.
"""

import json
import sys
import time
from io import BytesIO

import steady
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import N_CREATE, N_GET, N_SET
from pynetdicom.sop_class import ModalityPerformedProcedureStep

SR = "1.2.840.10008.5.1.4.1.1.88.67"


def reference(uid, sop_class):
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class
    item.ReferencedSOPInstanceUID = uid
    return item


def series_of(uids):
    """The last instance of a list is a dose report, which is no image."""
    if isinstance(uids, dict):
        uids = [f"{uids['root']}.{n}" for n in range(1, uids["count"] + 1)]
    item = Dataset()
    item.PerformingPhysicianName = "INVENTED^PHYSICIAN"
    item.ProtocolName = "invented"
    item.OperatorsName = ""
    item.SeriesInstanceUID = "1.2.3"
    item.SeriesDescription = ""
    item.RetrieveAETitle = ""
    item.ReferencedImageSequence = [reference(uid, CTImageStorage) for uid in uids[:-1]]
    item.ReferencedNonImageCompositeSOPInstanceSequence = [reference(uid, SR) for uid in uids[-1:]]
    return item


def data_set_of(operation):
    data_set = Dataset()
    if operation.get("status") is not None:
        data_set.PerformedProcedureStepStatus = operation["status"]
    if "create" in operation:
        data_set.PatientName = "INVENTED^PATIENT"
        data_set.PatientID = "INVENTED-1"
        data_set.Modality = "CT"
        data_set.PerformedProcedureStepID = "1"
        data_set.PerformedStationAETitle = "MODALITY"
        data_set.PerformedProcedureStepStartDate = "20260102"
        data_set.PerformedProcedureStepStartTime = "120000"
        items = []
        for uid in operation.get("studies", []):
            item = Dataset()
            item.StudyInstanceUID = uid
            item.AccessionNumber = "A0001"
            items.append(item)
        data_set.ScheduledStepAttributesSequence = items
        data_set.PerformedSeriesSequence = []
    if operation.get("series") is not None:
        data_set.PerformedSeriesSequence = [series_of(uids) for uids in operation["series"]]
    if operation.get("reason"):
        item = Dataset()
        item.CodeValue = operation["reason"]
        item.CodingSchemeDesignator = "DCM"
        item.CodeMeaning = "Discontinued for unspecified reason"
        data_set.PerformedProcedureStepDiscontinuationReasonCodeSequence = [item]
    return data_set


def send_raw(association, operation):
    """A request as no library would send it."""
    creates = operation["raw"] == "create"
    request = {"create": N_CREATE, "set": N_SET, "get": N_GET}[operation["raw"]]()
    role = "Affected" if creates else "Requested"
    request.MessageID = 77
    setattr(request, role + "SOPClassUID", operation["class"])
    setattr(request, role + "SOPInstanceUID", operation["instance"])
    if operation["bytes"] is not None:
        setattr(request, "AttributeList" if creates else "ModificationList", BytesIO(bytes(operation["bytes"])))
    # As pynetdicom's own methods keep its reactor from taking the response.
    association._reactor_checkpoint.clear()
    while not association._is_paused:
        time.sleep(0.01)
    association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
    association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()


def main():
    port, operations = int(sys.argv[1]), json.load(open(sys.argv[2], encoding="utf-8"))
    answers = []

    def received(event):
        command = event.message.command_set
        answers.append(
            {
                "status": f"{command.Status:04X}",
                "error_id": f"{command.ErrorID:04X}" if "ErrorID" in command else None,
                "comment": command.get("ErrorComment"),
                "instance": command.get("AffectedSOPInstanceUID"),
            }
        )

    entity = AE(ae_title="MODALITY")
    syntaxes = [ImplicitVRLittleEndian, ExplicitVRLittleEndian]
    entity.add_requested_context(ModalityPerformedProcedureStep, syntaxes)
    entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    association = entity.associate(
        "127.0.0.1", port, ae_title="PACSGATEWAY", evt_handlers=[(evt.EVT_DIMSE_RECV, received)]
    )
    if not association.is_established:
        sys.exit("no association")
    for operation in operations:
        if "raw" in operation:
            send_raw(association, operation)
            continue
        if "store" in operation:
            association.send_c_store(operation["store"])
            continue
        data_set = data_set_of(operation)
        if "create" in operation:
            begun, before = time.monotonic(), len(answers)
            while True:
                association.send_n_create(data_set, ModalityPerformedProcedureStep, operation["create"])
                as_wanted = answers[-1]["status"] == operation.get("until", answers[-1]["status"])
                if as_wanted or time.monotonic() - begun > 30:
                    break
                del answers[before:]
        else:
            association.send_n_set(data_set, ModalityPerformedProcedureStep, operation["set"])
    association.release()
    json.dump(answers, sys.stdout)


steady.install()
main()
