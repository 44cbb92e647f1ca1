//! The Storage SOP Classes, and which abstract syntaxes we accept for storing.
//!
//! PS3.4 Table B.5-1 with the retired classes that archives still send, and the classes that DICOS
//! and DICONDE registered under DICOM's root. A private class cannot be recognised as a storage
//! class from its UID, so [`classify`] sorts a UID into kinds and the listener's policy
//! decides.

/// One Storage SOP Class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SopClass {
    /// The SOP Class UID.
    pub uid: &'static str,
    /// Its name in PS3.6 Table A-1.
    pub name: &'static str,
    /// Retired from the standard: still received, never created.
    pub retired: bool,
}

/// What kind of service an abstract syntax stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The Verification SOP Class.
    Verification,
    /// A Storage SOP Class of composite instances that belong to a patient's study.
    Storage,
    /// The Storage Commitment Push Model SOP Class.
    StorageCommitment,
    /// The Modality Performed Procedure Step SOP Class.
    ProcedureStep,
    /// A service of the standard that is no such storage: queries, worklists, print, media
    /// directories, non-patient objects.
    OtherService,
    /// Not registered by DICOM: a vendor's class, perhaps for storing.
    Private,
}

/// All UIDs of the DICOM standard start with this root (PS3.5 Annex A).
const DICOM_ROOT: &str = "1.2.840.10008.";

/// The branch in which the standard registers classes of composite instances. A class in it that is
/// newer than our table is a storage class too, apart from [`NOT_COMPOSITE_STORAGE`].
const COMPOSITE_BRANCH: &str = "1.2.840.10008.5.1.4.1.1.";

/// Protocol and inventory services that live in the composite branch: they store objects without a
/// patient (PS3.4 GG) or are queries.
const NOT_COMPOSITE_STORAGE: [&str; 2] = [
    "1.2.840.10008.5.1.4.1.1.200.",
    "1.2.840.10008.5.1.4.1.1.201.",
];

/// Looks a Storage SOP Class up by its UID.
pub fn lookup(uid: &str) -> Option<&'static SopClass> {
    STORAGE
        .binary_search_by(|class| class.uid.cmp(uid))
        .ok()
        .and_then(|at| STORAGE.get(at))
}

/// All Storage SOP Classes, in the byte order of their UIDs.
pub fn all() -> &'static [SopClass] {
    STORAGE
}

/// True for a Storage SOP Class in the table.
pub fn is_standard_storage(uid: &str) -> bool {
    lookup(uid).is_some()
}

/// True for an abstract syntax of the standard that is known to be something else than storage of
/// patients' composite instances.
pub fn is_known_non_storage(uid: &str) -> bool {
    !matches!(classify(uid), Kind::Storage | Kind::Private)
}

/// Sorts an abstract syntax into the kinds that a listener tells apart.
pub fn classify(uid: &str) -> Kind {
    if uid == super::VERIFICATION {
        return Kind::Verification;
    }
    if uid == super::STORAGE_COMMITMENT {
        return Kind::StorageCommitment;
    }
    if uid == super::PROCEDURE_STEP {
        return Kind::ProcedureStep;
    }
    if is_standard_storage(uid) {
        return Kind::Storage;
    }
    if !uid.starts_with(DICOM_ROOT) {
        return Kind::Private;
    }
    let newer_than_the_table = uid.starts_with(COMPOSITE_BRANCH)
        && !NOT_COMPOSITE_STORAGE
            .iter()
            .any(|branch| uid.starts_with(branch));
    if newer_than_the_table {
        Kind::Storage
    } else {
        Kind::OtherService
    }
}

const fn current(uid: &'static str, name: &'static str) -> SopClass {
    SopClass {
        uid,
        name,
        retired: false,
    }
}

const fn retired(uid: &'static str, name: &'static str) -> SopClass {
    SopClass {
        uid,
        name,
        retired: true,
    }
}

// Sorted by UID as text, which `lookup` relies on and a test checks.
#[rustfmt::skip]
const STORAGE: &[SopClass] = &[
    current("1.2.840.10008.5.1.4.1.1.1", "Computed Radiography Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.1.1", "Digital X-Ray Image Storage - For Presentation"),
    current("1.2.840.10008.5.1.4.1.1.1.1.1", "Digital X-Ray Image Storage - For Processing"),
    current("1.2.840.10008.5.1.4.1.1.1.2", "Digital Mammography X-Ray Image Storage - For Presentation"),
    current("1.2.840.10008.5.1.4.1.1.1.2.1", "Digital Mammography X-Ray Image Storage - For Processing"),
    current("1.2.840.10008.5.1.4.1.1.1.3", "Digital Intra-Oral X-Ray Image Storage - For Presentation"),
    current("1.2.840.10008.5.1.4.1.1.1.3.1", "Digital Intra-Oral X-Ray Image Storage - For Processing"),
    retired("1.2.840.10008.5.1.4.1.1.10", "Standalone Modality LUT Storage"),
    current("1.2.840.10008.5.1.4.1.1.104.1", "Encapsulated PDF Storage"),
    current("1.2.840.10008.5.1.4.1.1.104.2", "Encapsulated CDA Storage"),
    current("1.2.840.10008.5.1.4.1.1.104.3", "Encapsulated STL Storage"),
    current("1.2.840.10008.5.1.4.1.1.104.4", "Encapsulated OBJ Storage"),
    current("1.2.840.10008.5.1.4.1.1.104.5", "Encapsulated MTL Storage"),
    retired("1.2.840.10008.5.1.4.1.1.11", "Standalone VOI LUT Storage"),
    current("1.2.840.10008.5.1.4.1.1.11.1", "Grayscale Softcopy Presentation State Storage"),
    current("1.2.840.10008.5.1.4.1.1.11.10", "Segmented Volume Rendering Volumetric Presentation State Storage"),
    current("1.2.840.10008.5.1.4.1.1.11.11", "Multiple Volume Rendering Volumetric Presentation State Storage"),
    current("1.2.840.10008.5.1.4.1.1.11.12", "Variable Modality LUT Softcopy Presentation State Storage"),
    current("1.2.840.10008.5.1.4.1.1.11.2", "Color Softcopy Presentation State Storage"),
    current("1.2.840.10008.5.1.4.1.1.11.3", "Pseudo-Color Softcopy Presentation State Storage"),
    current("1.2.840.10008.5.1.4.1.1.11.4", "Blending Softcopy Presentation State Storage"),
    current("1.2.840.10008.5.1.4.1.1.11.5", "XA/XRF Grayscale Softcopy Presentation State Storage"),
    current("1.2.840.10008.5.1.4.1.1.11.6", "Grayscale Planar MPR Volumetric Presentation State Storage"),
    current("1.2.840.10008.5.1.4.1.1.11.7", "Compositing Planar MPR Volumetric Presentation State Storage"),
    current("1.2.840.10008.5.1.4.1.1.11.8", "Advanced Blending Presentation State Storage"),
    current("1.2.840.10008.5.1.4.1.1.11.9", "Volume Rendering Volumetric Presentation State Storage"),
    current("1.2.840.10008.5.1.4.1.1.12.1", "X-Ray Angiographic Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.12.1.1", "Enhanced XA Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.12.2", "X-Ray Radiofluoroscopic Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.12.2.1", "Enhanced XRF Image Storage"),
    retired("1.2.840.10008.5.1.4.1.1.12.3", "X-Ray Angiographic Bi-Plane Image Storage"),
    retired("1.2.840.10008.5.1.4.1.1.12.77", "Zoomable X-Ray Angiographic Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.128", "Positron Emission Tomography Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.128.1", "Legacy Converted Enhanced PET Image Storage"),
    retired("1.2.840.10008.5.1.4.1.1.129", "Standalone PET Curve Storage"),
    current("1.2.840.10008.5.1.4.1.1.13.1.1", "X-Ray 3D Angiographic Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.13.1.2", "X-Ray 3D Craniofacial Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.13.1.3", "Breast Tomosynthesis Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.13.1.4", "Breast Projection X-Ray Image Storage - For Presentation"),
    current("1.2.840.10008.5.1.4.1.1.13.1.5", "Breast Projection X-Ray Image Storage - For Processing"),
    current("1.2.840.10008.5.1.4.1.1.130", "Enhanced PET Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.131", "Basic Structured Display Storage"),
    current("1.2.840.10008.5.1.4.1.1.14.1", "Intravascular Optical Coherence Tomography Image Storage - For Presentation"),
    current("1.2.840.10008.5.1.4.1.1.14.2", "Intravascular Optical Coherence Tomography Image Storage - For Processing"),
    current("1.2.840.10008.5.1.4.1.1.2", "CT Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.2.1", "Enhanced CT Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.2.2", "Legacy Converted Enhanced CT Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.20", "Nuclear Medicine Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.200.2", "CT Performed Procedure Protocol Storage"),
    current("1.2.840.10008.5.1.4.1.1.200.8", "XA Performed Procedure Protocol Storage"),
    retired("1.2.840.10008.5.1.4.1.1.3", "Ultrasound Multi-frame Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.3.1", "Ultrasound Multi-frame Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.30", "Parametric Map Storage"),
    current("1.2.840.10008.5.1.4.1.1.4", "MR Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.4.1", "Enhanced MR Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.4.2", "MR Spectroscopy Storage"),
    current("1.2.840.10008.5.1.4.1.1.4.3", "Enhanced MR Color Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.4.4", "Legacy Converted Enhanced MR Image Storage"),
    retired("1.2.840.10008.5.1.4.1.1.40", "MR Image Storage Zero Padded"),
    current("1.2.840.10008.5.1.4.1.1.481.1", "RT Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.481.10", "RT Physician Intent Storage"),
    current("1.2.840.10008.5.1.4.1.1.481.11", "RT Segment Annotation Storage"),
    current("1.2.840.10008.5.1.4.1.1.481.12", "RT Radiation Set Storage"),
    current("1.2.840.10008.5.1.4.1.1.481.13", "C-Arm Photon-Electron Radiation Storage"),
    current("1.2.840.10008.5.1.4.1.1.481.14", "Tomotherapeutic Radiation Storage"),
    current("1.2.840.10008.5.1.4.1.1.481.15", "Robotic-Arm Radiation Storage"),
    current("1.2.840.10008.5.1.4.1.1.481.16", "RT Radiation Record Set Storage"),
    current("1.2.840.10008.5.1.4.1.1.481.17", "RT Radiation Salvage Record Storage"),
    current("1.2.840.10008.5.1.4.1.1.481.18", "Tomotherapeutic Radiation Record Storage"),
    current("1.2.840.10008.5.1.4.1.1.481.19", "C-Arm Photon-Electron Radiation Record Storage"),
    current("1.2.840.10008.5.1.4.1.1.481.2", "RT Dose Storage"),
    current("1.2.840.10008.5.1.4.1.1.481.20", "Robotic Radiation Record Storage"),
    current("1.2.840.10008.5.1.4.1.1.481.21", "RT Radiation Set Delivery Instruction Storage"),
    current("1.2.840.10008.5.1.4.1.1.481.22", "RT Treatment Preparation Storage"),
    current("1.2.840.10008.5.1.4.1.1.481.23", "Enhanced RT Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.481.24", "Enhanced Continuous RT Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.481.25", "RT Patient Position Acquisition Instruction Storage"),
    current("1.2.840.10008.5.1.4.1.1.481.3", "RT Structure Set Storage"),
    current("1.2.840.10008.5.1.4.1.1.481.4", "RT Beams Treatment Record Storage"),
    current("1.2.840.10008.5.1.4.1.1.481.5", "RT Plan Storage"),
    current("1.2.840.10008.5.1.4.1.1.481.6", "RT Brachy Treatment Record Storage"),
    current("1.2.840.10008.5.1.4.1.1.481.7", "RT Treatment Summary Record Storage"),
    current("1.2.840.10008.5.1.4.1.1.481.8", "RT Ion Plan Storage"),
    current("1.2.840.10008.5.1.4.1.1.481.9", "RT Ion Beams Treatment Record Storage"),
    retired("1.2.840.10008.5.1.4.1.1.5", "Nuclear Medicine Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.501.1", "DICOS CT Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.501.2.1", "DICOS Digital X-Ray Image Storage - For Presentation"),
    current("1.2.840.10008.5.1.4.1.1.501.2.2", "DICOS Digital X-Ray Image Storage - For Processing"),
    current("1.2.840.10008.5.1.4.1.1.501.3", "DICOS Threat Detection Report Storage"),
    current("1.2.840.10008.5.1.4.1.1.501.4", "DICOS 2D AIT Storage"),
    current("1.2.840.10008.5.1.4.1.1.501.5", "DICOS 3D AIT Storage"),
    current("1.2.840.10008.5.1.4.1.1.501.6", "DICOS Quadrupole Resonance (QR) Storage"),
    retired("1.2.840.10008.5.1.4.1.1.6", "Ultrasound Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.6.1", "Ultrasound Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.6.2", "Enhanced US Volume Storage"),
    current("1.2.840.10008.5.1.4.1.1.6.3", "Photoacoustic Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.601.1", "Eddy Current Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.601.2", "Eddy Current Multi-frame Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.66", "Raw Data Storage"),
    current("1.2.840.10008.5.1.4.1.1.66.1", "Spatial Registration Storage"),
    current("1.2.840.10008.5.1.4.1.1.66.2", "Spatial Fiducials Storage"),
    current("1.2.840.10008.5.1.4.1.1.66.3", "Deformable Spatial Registration Storage"),
    current("1.2.840.10008.5.1.4.1.1.66.4", "Segmentation Storage"),
    current("1.2.840.10008.5.1.4.1.1.66.5", "Surface Segmentation Storage"),
    current("1.2.840.10008.5.1.4.1.1.66.6", "Tractography Results Storage"),
    current("1.2.840.10008.5.1.4.1.1.66.7", "Label Map Segmentation Storage"),
    current("1.2.840.10008.5.1.4.1.1.66.8", "Height Map Segmentation Storage"),
    current("1.2.840.10008.5.1.4.1.1.67", "Real World Value Mapping Storage"),
    current("1.2.840.10008.5.1.4.1.1.68.1", "Surface Scan Mesh Storage"),
    current("1.2.840.10008.5.1.4.1.1.68.2", "Surface Scan Point Cloud Storage"),
    current("1.2.840.10008.5.1.4.1.1.7", "Secondary Capture Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.7.1", "Multi-frame Single Bit Secondary Capture Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.7.2", "Multi-frame Grayscale Byte Secondary Capture Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.7.3", "Multi-frame Grayscale Word Secondary Capture Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.7.4", "Multi-frame True Color Secondary Capture Image Storage"),
    retired("1.2.840.10008.5.1.4.1.1.77.1", "VL Image Storage - Trial"),
    current("1.2.840.10008.5.1.4.1.1.77.1.1", "VL Endoscopic Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.77.1.1.1", "Video Endoscopic Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.77.1.2", "VL Microscopic Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.77.1.2.1", "Video Microscopic Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.77.1.3", "VL Slide-Coordinates Microscopic Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.77.1.4", "VL Photographic Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.77.1.4.1", "Video Photographic Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.77.1.5.1", "Ophthalmic Photography 8 Bit Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.77.1.5.2", "Ophthalmic Photography 16 Bit Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.77.1.5.3", "Stereometric Relationship Storage"),
    current("1.2.840.10008.5.1.4.1.1.77.1.5.4", "Ophthalmic Tomography Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.77.1.5.5", "Wide Field Ophthalmic Photography Stereographic Projection Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.77.1.5.6", "Wide Field Ophthalmic Photography 3D Coordinates Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.77.1.5.7", "Ophthalmic Optical Coherence Tomography En Face Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.77.1.5.8", "Ophthalmic Optical Coherence Tomography B-scan Volume Analysis Storage"),
    current("1.2.840.10008.5.1.4.1.1.77.1.6", "VL Whole Slide Microscopy Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.77.1.7", "Dermoscopic Photography Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.77.1.8", "Confocal Microscopy Image Storage"),
    current("1.2.840.10008.5.1.4.1.1.77.1.9", "Confocal Microscopy Tiled Pyramidal Image Storage"),
    retired("1.2.840.10008.5.1.4.1.1.77.2", "VL Multi-frame Image Storage - Trial"),
    current("1.2.840.10008.5.1.4.1.1.78.1", "Lensometry Measurements Storage"),
    current("1.2.840.10008.5.1.4.1.1.78.2", "Autorefraction Measurements Storage"),
    current("1.2.840.10008.5.1.4.1.1.78.3", "Keratometry Measurements Storage"),
    current("1.2.840.10008.5.1.4.1.1.78.4", "Subjective Refraction Measurements Storage"),
    current("1.2.840.10008.5.1.4.1.1.78.5", "Visual Acuity Measurements Storage"),
    current("1.2.840.10008.5.1.4.1.1.78.6", "Spectacle Prescription Report Storage"),
    current("1.2.840.10008.5.1.4.1.1.78.7", "Ophthalmic Axial Measurements Storage"),
    current("1.2.840.10008.5.1.4.1.1.78.8", "Intraocular Lens Calculations Storage"),
    current("1.2.840.10008.5.1.4.1.1.79.1", "Macular Grid Thickness and Volume Report Storage"),
    retired("1.2.840.10008.5.1.4.1.1.8", "Standalone Overlay Storage"),
    current("1.2.840.10008.5.1.4.1.1.80.1", "Ophthalmic Visual Field Static Perimetry Measurements Storage"),
    current("1.2.840.10008.5.1.4.1.1.81.1", "Ophthalmic Thickness Map Storage"),
    current("1.2.840.10008.5.1.4.1.1.82.1", "Corneal Topography Map Storage"),
    retired("1.2.840.10008.5.1.4.1.1.88.1", "Text SR Storage - Trial"),
    current("1.2.840.10008.5.1.4.1.1.88.11", "Basic Text SR Storage"),
    retired("1.2.840.10008.5.1.4.1.1.88.2", "Audio SR Storage - Trial"),
    current("1.2.840.10008.5.1.4.1.1.88.22", "Enhanced SR Storage"),
    retired("1.2.840.10008.5.1.4.1.1.88.3", "Detail SR Storage - Trial"),
    current("1.2.840.10008.5.1.4.1.1.88.33", "Comprehensive SR Storage"),
    current("1.2.840.10008.5.1.4.1.1.88.34", "Comprehensive 3D SR Storage"),
    current("1.2.840.10008.5.1.4.1.1.88.35", "Extensible SR Storage"),
    retired("1.2.840.10008.5.1.4.1.1.88.4", "Comprehensive SR Storage - Trial"),
    current("1.2.840.10008.5.1.4.1.1.88.40", "Procedure Log Storage"),
    current("1.2.840.10008.5.1.4.1.1.88.50", "Mammography CAD SR Storage"),
    current("1.2.840.10008.5.1.4.1.1.88.59", "Key Object Selection Document Storage"),
    current("1.2.840.10008.5.1.4.1.1.88.65", "Chest CAD SR Storage"),
    current("1.2.840.10008.5.1.4.1.1.88.67", "X-Ray Radiation Dose SR Storage"),
    current("1.2.840.10008.5.1.4.1.1.88.68", "Radiopharmaceutical Radiation Dose SR Storage"),
    current("1.2.840.10008.5.1.4.1.1.88.69", "Colon CAD SR Storage"),
    current("1.2.840.10008.5.1.4.1.1.88.70", "Implantation Plan SR Storage"),
    current("1.2.840.10008.5.1.4.1.1.88.71", "Acquisition Context SR Storage"),
    current("1.2.840.10008.5.1.4.1.1.88.72", "Simplified Adult Echo SR Storage"),
    current("1.2.840.10008.5.1.4.1.1.88.73", "Patient Radiation Dose SR Storage"),
    current("1.2.840.10008.5.1.4.1.1.88.74", "Planned Imaging Agent Administration SR Storage"),
    current("1.2.840.10008.5.1.4.1.1.88.75", "Performed Imaging Agent Administration SR Storage"),
    current("1.2.840.10008.5.1.4.1.1.88.76", "Enhanced X-Ray Radiation Dose SR Storage"),
    current("1.2.840.10008.5.1.4.1.1.88.77", "Waveform Annotation SR Storage"),
    retired("1.2.840.10008.5.1.4.1.1.9", "Standalone Curve Storage"),
    retired("1.2.840.10008.5.1.4.1.1.9.1", "Waveform Storage - Trial"),
    current("1.2.840.10008.5.1.4.1.1.9.1.1", "12-lead ECG Waveform Storage"),
    current("1.2.840.10008.5.1.4.1.1.9.1.2", "General ECG Waveform Storage"),
    current("1.2.840.10008.5.1.4.1.1.9.1.3", "Ambulatory ECG Waveform Storage"),
    current("1.2.840.10008.5.1.4.1.1.9.1.4", "General 32-bit ECG Waveform Storage"),
    current("1.2.840.10008.5.1.4.1.1.9.100.1", "Waveform Presentation State Storage"),
    current("1.2.840.10008.5.1.4.1.1.9.100.2", "Waveform Acquisition Presentation State Storage"),
    current("1.2.840.10008.5.1.4.1.1.9.2.1", "Hemodynamic Waveform Storage"),
    current("1.2.840.10008.5.1.4.1.1.9.3.1", "Cardiac Electrophysiology Waveform Storage"),
    current("1.2.840.10008.5.1.4.1.1.9.4.1", "Basic Voice Audio Waveform Storage"),
    current("1.2.840.10008.5.1.4.1.1.9.4.2", "General Audio Waveform Storage"),
    current("1.2.840.10008.5.1.4.1.1.9.5.1", "Arterial Pulse Waveform Storage"),
    current("1.2.840.10008.5.1.4.1.1.9.6.1", "Respiratory Waveform Storage"),
    current("1.2.840.10008.5.1.4.1.1.9.6.2", "Multi-channel Respiratory Waveform Storage"),
    current("1.2.840.10008.5.1.4.1.1.9.7.1", "Routine Scalp Electroencephalogram Waveform Storage"),
    current("1.2.840.10008.5.1.4.1.1.9.7.2", "Electromyogram Waveform Storage"),
    current("1.2.840.10008.5.1.4.1.1.9.7.3", "Electrooculogram Waveform Storage"),
    current("1.2.840.10008.5.1.4.1.1.9.7.4", "Sleep Electroencephalogram Waveform Storage"),
    current("1.2.840.10008.5.1.4.1.1.9.8.1", "Body Position Waveform Storage"),
    current("1.2.840.10008.5.1.4.1.1.90.1", "Content Assessment Results Storage"),
    current("1.2.840.10008.5.1.4.1.1.91.1", "Microscopy Bulk Simple Annotations Storage"),
    current("1.2.840.10008.5.1.4.34.10", "RT Brachy Application Setup Delivery Instruction Storage"),
    current("1.2.840.10008.5.1.4.34.7", "RT Beams Delivery Instruction Storage"),
];

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::dicom::Uid;

    #[test]
    fn the_table_is_sorted_free_of_doubles_and_made_of_valid_uids() {
        assert!(STORAGE.is_sorted_by(|a, b| a.uid < b.uid));
        for class in STORAGE {
            assert!(Uid::parse(class.uid).is_ok(), "{}", class.uid);
            assert!(!class.name.is_empty(), "{}", class.uid);
        }
        assert!(STORAGE.iter().filter(|class| !class.retired).count() >= 170);
    }

    #[test]
    fn a_class_is_found_by_its_uid() {
        assert_eq!(
            lookup("1.2.840.10008.5.1.4.1.1.2").unwrap().name,
            "CT Image Storage"
        );
        assert!(lookup("1.2.840.10008.5.1.4.1.1.6").unwrap().retired);
        assert!(lookup("1.2.840.10008.5.1.4.1.1").is_none());
    }

    #[test]
    fn abstract_syntaxes_are_sorted_into_kinds() {
        for (uid, kind) in [
            ("1.2.840.10008.1.1", Kind::Verification),
            ("1.2.840.10008.5.1.4.1.1.2", Kind::Storage),
            ("1.2.840.10008.5.1.4.34.7", Kind::Storage),
            ("1.2.840.10008.5.1.4.1.1.999.1", Kind::Storage),
            ("1.2.840.10008.5.1.4.31", Kind::OtherService),
            ("1.2.840.10008.1.3.10", Kind::OtherService),
            ("1.2.840.10008.5.1.4.39.1", Kind::OtherService),
            ("1.2.840.10008.5.1.4.1.1.200.4", Kind::OtherService),
            ("1.2.840.10008.5.1.4.1.2.2.1", Kind::OtherService),
            ("1.3.12.2.1107.5.9.1", Kind::Private),
            ("1.2.840.100081.1", Kind::Private),
        ] {
            assert_eq!(classify(uid), kind, "{uid}");
        }
    }
}
