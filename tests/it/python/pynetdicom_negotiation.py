"""Asks for everything that pynetdicom can ask for in an association request, and judges the answers.

    pynetdicom_negotiation.py PORT ignore|accept

The second argument is the gateway's `dicom.user_identity`.
"""

import os
import sys
import traceback

import steady
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, StoragePresentationContexts, build_role
from pynetdicom.pdu_primitives import (
    AsynchronousOperationsWindowNegotiation,
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
PRIVATE = "1.2.826.0.1.3680043.8.498.77"
STORAGE_SERVICE = "1.2.840.10008.4.2"
# Stored Print, Hardcopy Grayscale and Hardcopy Color Image Storage: films, not a patient's instances.
NO_PATIENT = {"1.2.840.10008.5.1.1.27", "1.2.840.10008.5.1.1.29", "1.2.840.10008.5.1.1.30"}
# JPIP, SMPTE ST 2110, RFC 2557 MIME, XML: no data sets that could be kept.
NOT_KEPT = {
    "1.2.840.10008.1.2.4.94",
    "1.2.840.10008.1.2.4.95",
    "1.2.840.10008.1.2.4.204",
    "1.2.840.10008.1.2.4.205",
    "1.2.840.10008.1.2.6.1",
    "1.2.840.10008.1.2.6.2",
    "1.2.840.10008.1.2.7.1",
    "1.2.840.10008.1.2.7.2",
    "1.2.840.10008.1.2.7.3",
}


def associate(port, contexts, items=()):
    entity = AE(ae_title="PYNETDICOM")
    entity.requested_contexts = []
    for abstract_syntax, transfer_syntaxes in contexts:
        entity.add_requested_context(abstract_syntax, transfer_syntaxes)
    association = entity.associate("127.0.0.1", port, ae_title="PACSGATEWAY", ext_neg=list(items))
    assert association.is_established, "no association"
    return association


def window(invoked, performed):
    item = AsynchronousOperationsWindowNegotiation()
    item.maximum_number_operations_invoked = invoked
    item.maximum_number_operations_performed = performed
    return item


def identity(kind, primary, secondary=b""):
    item = UserIdentityNegotiation()
    item.user_identity_type = kind
    item.primary_field = primary
    if secondary:
        item.secondary_field = secondary
    item.positive_response_requested = True
    return item


def main():
    port, policy = int(sys.argv[1]), sys.argv[2]

    # Every storage class pynetdicom knows, as many as fit.
    contexts = [(context.abstract_syntax, ["1.2.840.10008.1.2.1"]) for context in StoragePresentationContexts[:128]]
    association = associate(port, contexts)
    refused = {context.abstract_syntax for context in association.rejected_contexts}
    assert refused == {uid for uid, _ in contexts} & NO_PATIENT, refused
    assert len(association.accepted_contexts) + len(refused) == len(contexts)
    association.release()

    # All transfer syntaxes in one context: the first that is kept is chosen. Then each on its own.
    association = associate(port, [(CT, ALL_TRANSFER_SYNTAXES)])
    (chosen,) = association.accepted_contexts[0].transfer_syntax
    assert chosen == next(uid for uid in ALL_TRANSFER_SYNTAXES if uid not in NOT_KEPT), chosen
    association.release()
    for uid in ALL_TRANSFER_SYNTAXES:
        association = associate(port, [("1.2.840.10008.1.1", ["1.2.840.10008.1.2"]), (CT, [uid])])
        accepted = {context.abstract_syntax: context.transfer_syntax for context in association.accepted_contexts}
        assert (CT in accepted) == (uid not in NOT_KEPT), uid
        assert CT not in accepted or accepted[CT] == [uid], uid
        association.release()

    # All user information at once.
    extended = SOPClassExtendedNegotiation()
    extended.sop_class_uid = CT
    extended.service_class_application_information = bytes([2, 0, 3, 0, 1, 0])
    common = SOPClassCommonExtendedNegotiation()
    common.sop_class_uid = PRIVATE
    common.service_class_uid = STORAGE_SERVICE
    common.related_general_sop_class_identification = [CT]
    for asked, answered in ((0, 64), (7, 7), (1000, 64)):
        items = [window(asked, 3), extended, common, build_role(CT, scu_role=True, scp_role=True)]
        items.append(identity(2, b"SECRET-NAME", b"SECRET-WORD"))
        association = associate(port, [(CT, ["1.2.840.10008.1.2.1"]), (PRIVATE, ["1.2.840.10008.1.2.1"])], items)
        acceptor = association.acceptor
        assert acceptor.asynchronous_operations == (answered, 1), acceptor.asynchronous_operations
        role = acceptor.role_selection[CT]
        assert (role.scu_role, role.scp_role) == (True, False)
        assert acceptor.sop_class_extended == {CT: bytes([2, 0, 1, 0, 0, 0])}
        assert len(association.accepted_contexts) == 2
        response = [item for item in acceptor.user_information if type(item).__name__ == "UserIdentityNegotiation"]
        assert len(response) == (1 if policy == "accept" else 0), response
        association.release()
    # What cannot be acknowledged without being verified is not.
    for kind in (3, 4, 5):
        association = associate(port, [(CT, ["1.2.840.10008.1.2.1"])], [identity(kind, b"SECRET-TICKET")])
        items = association.acceptor.user_information
        assert not [item for item in items if type(item).__name__ == "UserIdentityNegotiation"], kind
        association.release()


steady.install()
try:
    main()
except BaseException:
    traceback.print_exc()
    # The threads of an association that is still open would keep the process.
    sys.stderr.flush()
    os._exit(1)
