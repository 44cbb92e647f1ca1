//! Modality (0008,0060), PS3.3 C.7.3.1.1.1.

/// Context group 33 "Modality" (PS3.16), in order of the alphabet.
const DEFINED_TERMS: [&str; 74] = [
    "AR",
    "ASMT",
    "AU",
    "BDUS",
    "BI",
    "BMD",
    "CFM",
    "CR",
    "CT",
    "CTPROTOCOL",
    "DG",
    "DMS",
    "DOC",
    "DX",
    "ECG",
    "EEG",
    "EMG",
    "EOG",
    "EPS",
    "ES",
    "FID",
    "GM",
    "HC",
    "HD",
    "IO",
    "IOL",
    "IVOCT",
    "IVUS",
    "KER",
    "KO",
    "LEN",
    "LS",
    "M3D",
    "MG",
    "MR",
    "NM",
    "OAM",
    "OCT",
    "OP",
    "OPM",
    "OPT",
    "OPTBSV",
    "OPTENF",
    "OPV",
    "OSS",
    "OT",
    "PA",
    "PLAN",
    "POS",
    "PR",
    "PT",
    "PX",
    "REG",
    "RESP",
    "RF",
    "RG",
    "RTDOSE",
    "RTIMAGE",
    "RTPLAN",
    "RTRECORD",
    "RTSTRUCT",
    "RWV",
    "SEG",
    "SM",
    "SMR",
    "SR",
    "SRF",
    "STAIN",
    "TEXTUREMAP",
    "TG",
    "US",
    "VA",
    "XA",
    "XC",
];

/// The term that a file says, or `other`: a bounded list, unlike what files may say.
pub fn defined_term(modality: &str) -> &'static str {
    let found = DEFINED_TERMS.binary_search(&modality);
    found.map_or("other", |at| {
        DEFINED_TERMS.get(at).copied().unwrap_or("other")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_standards_words_are_told_apart() {
        assert!(DEFINED_TERMS.is_sorted());
        assert!(DEFINED_TERMS.iter().all(|term| defined_term(term) == *term));
        for made_up in ["", "ct", "DOE JANE", "CT "] {
            assert_eq!(defined_term(made_up), "other");
        }
    }
}
