"""What every golden DICOM file has in common: fixed UIDs, an obviously invented patient, fixed dates.

All values are invented. UIDs are UUID-derived (PS3.5 B.2) from a text, so the same case always gets the same UIDs
and two runs write the same bytes.
"""

import uuid

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian


def uid(*parts):
    """A UID under 2.25 that depends on `parts` only."""
    text = "urn:pacs-gateway:golden:" + ":".join(parts)
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_URL, text).int}")


def code(value, scheme, meaning):
    """A one-item code sequence (PS3.3 Table 8.8-1)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return [item]


def new(model, case, instance, sop_class, modality):
    """A data set with file meta information and the patient, study, series and equipment modules filled."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = uid(model, case, "instance", str(instance))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = uid("implementation")
    meta.ImplementationVersionName = "PACSGW_GOLDEN"
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    dataset.StudyDate = dataset.ContentDate = "20260102"
    dataset.StudyTime, dataset.ContentTime = "101500", "101530"
    dataset.AccessionNumber = ""
    dataset.Modality = modality
    dataset.Manufacturer = "PACS GATEWAY PHANTOMS"
    dataset.ManufacturerModelName = model
    dataset.ReferringPhysicianName = ""
    dataset.PatientName = "PHANTOM^ONE"
    dataset.PatientID = "PHANTOM-1"
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "O"
    dataset.StudyDescription = f"SYNTHETIC {case}".upper()
    dataset.StudyInstanceUID = uid(model, case, "study")
    dataset.SeriesInstanceUID = uid(model, case, "series", str(instance))
    dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber = "1", instance, instance
    return dataset


def save(dataset, path):
    """Writes a Part 10 file, refusing what does not conform to the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    print(f"{path.parent.name}/{path.name}: {path.stat().st_size} bytes, {dataset.file_meta.TransferSyntaxUID.name}")
