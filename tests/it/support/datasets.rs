//! Studies that the tests make up: small images with invented patients, in explicit VR little endian.

/// CT Image Storage.
pub const CT_IMAGE: &str = "1.2.840.10008.5.1.4.1.1.2";
/// Digital X-Ray Image Storage - For Presentation.
pub const DX_IMAGE: &str = "1.2.840.10008.5.1.4.1.1.1.1";
/// Basic Text SR Storage.
pub const TEXT_REPORT: &str = "1.2.840.10008.5.1.4.1.1.88.11";
/// Explicit VR Little Endian.
pub const EXPLICIT: &str = "1.2.840.10008.1.2.1";

/// A study in the making.
#[derive(Debug, Clone)]
pub struct Study {
    /// Study Instance UID.
    pub uid: String,
    /// Patient's Name (0010,0010).
    pub patient_name: String,
    /// Patient ID (0010,0020).
    pub patient_id: String,
    /// Accession Number (0008,0050).
    pub accession_number: String,
    /// Height and width of the images.
    pub side: u16,
    /// What the UIDs of series and instances begin with.
    root: String,
    sop_class: &'static str,
    modality: &'static str,
    /// Requested Procedure Priority (0040,1003).
    priority: Option<&'static str>,
}

/// One instance: what a C-STORE sends.
#[derive(Debug, Clone)]
pub struct Instance {
    /// SOP Class UID.
    pub sop_class: String,
    /// SOP Instance UID.
    pub sop_instance: String,
    /// Transfer syntax of the data set.
    pub transfer_syntax: String,
    /// The encoded data set.
    pub data_set: Vec<u8>,
}

impl Instance {
    /// The same with another value of an attribute, which it may have had or not.
    pub fn with(mut self, tag: (u16, u16), vr: &[u8; 2], value: &[u8]) -> Self {
        let mut changed = value.to_vec();
        if changed.len() % 2 == 1 {
            changed.push(b' ');
        }
        let (mut at, mut end) = (0, 0);
        while let Some(head) = self.data_set.get(at..at + 12) {
            let short = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
            let long = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
            let length = match &head[4..6] {
                b"OB" | b"OW" => 12 + long as usize,
                _ => 8 + usize::from(short(6)),
            };
            let here = (short(0), short(2));
            end = at + if here == tag { length } else { 0 };
            if here >= tag {
                break;
            }
            at += length;
            end = at;
        }
        let mut new = Vec::new();
        element(&mut new, tag, vr, &changed);
        self.data_set.splice(at..end, new);
        self
    }

    /// A Part 10 file of it (PS3.10 §7.1).
    pub fn part_10(&self) -> Vec<u8> {
        let mut meta = Vec::new();
        let padded = |uid: &str| {
            let mut uid = uid.as_bytes().to_vec();
            uid.resize(uid.len().next_multiple_of(2), 0);
            uid
        };
        element(&mut meta, (2, 2), b"UI", &padded(&self.sop_class));
        element(&mut meta, (2, 3), b"UI", &padded(&self.sop_instance));
        element(&mut meta, (2, 0x10), b"UI", &padded(&self.transfer_syntax));
        let mut file = vec![0; 128];
        file.extend(b"DICM");
        let length = u32::try_from(meta.len()).unwrap();
        element(&mut file, (2, 0), b"UL", &length.to_le_bytes());
        file.extend(meta);
        file.extend(&self.data_set);
        file
    }
}

impl Study {
    /// CT slices: no model of the repository applies to them.
    pub fn ct() -> Self {
        Self::new(CT_IMAGE, "CT")
    }

    /// Frontal chest images: `cxr-phantom` applies to them.
    pub fn chest() -> Self {
        Self::new(DX_IMAGE, "DX")
    }

    /// The same study as another device adds to it: a series of structured reports, without pixels.
    pub fn reports(&self) -> Self {
        Self {
            root: new_uid(),
            sop_class: TEXT_REPORT,
            modality: "SR",
            ..self.clone()
        }
    }

    /// The `number`th instance without pixels.
    pub fn document(&self, number: u16) -> Instance {
        let mut data_set = self.header(number);
        // Image Pixel attributes (group 0028) are the last ones.
        let group = [0x28, 0, 2, 0, b'U', b'S'];
        let at = data_set.windows(6).position(|some| some == group).unwrap();
        data_set.truncate(at);
        self.instance(number, EXPLICIT, data_set)
    }

    fn new(sop_class: &'static str, modality: &'static str) -> Self {
        Self {
            uid: new_uid(),
            patient_name: "INVENTED^PATIENT".to_owned(),
            patient_id: "INVENTED-1".to_owned(),
            accession_number: "A0001".to_owned(),
            side: 64,
            root: new_uid(),
            sop_class,
            modality,
            priority: None,
        }
    }

    /// The same study of another modality.
    pub fn of_modality(mut self, modality: &'static str) -> Self {
        self.modality = modality;
        self
    }

    /// The same study, requested with this priority.
    pub fn requested(mut self, priority: &'static str) -> Self {
        self.priority = Some(priority);
        self
    }

    /// The same study of somebody whose data are easy to find again.
    pub fn of_patient(mut self, name: &str, id: &str, accession_number: &str) -> Self {
        (self.patient_name, self.patient_id) = (name.to_owned(), id.to_owned());
        self.accession_number = accession_number.to_owned();
        self
    }

    /// The `number`th image.
    pub fn image(&self, number: u16) -> Instance {
        self.image_with(number, u64::from(number))
    }

    /// An image that has one stored value everywhere.
    pub fn filled(&self, number: u16, value: u16) -> Instance {
        let pixels = value.to_le_bytes().repeat(usize::from(self.side).pow(2));
        let mut data_set = self.header(number);
        element(&mut data_set, (0x7FE0, 0x0010), b"OW", &pixels);
        self.instance(number, EXPLICIT, data_set)
    }

    /// The same instance with other pixels: another `seed`, other bytes.
    pub fn image_with(&self, number: u16, seed: u64) -> Instance {
        let pixels = noise(usize::from(self.side).pow(2), seed);
        let mut data_set = self.header(number);
        element(&mut data_set, (0x7FE0, 0x0010), b"OW", &pixels);
        self.instance(number, EXPLICIT, data_set)
    }

    /// One instance of several frames; frame `n` (from 0) has the pixels of `image_with(_, n + 1)`.
    pub fn frames(&self, number: u16, count: u16) -> Instance {
        let side = usize::from(self.side).pow(2);
        let pixels: Vec<u8> = (0..count)
            .flat_map(|frame| noise(side, u64::from(frame) + 1))
            .collect();
        let mut data_set = self.header(number);
        // In its place by number: before Rows (0028,0010).
        let mut frames = Vec::new();
        let text = format!("{count:<4}");
        element(&mut frames, (0x0028, 0x0008), b"IS", text.as_bytes());
        let rows = [0x28, 0, 0x10, 0, b'U', b'S'];
        let at = data_set.windows(6).position(|some| some == rows).unwrap();
        data_set.splice(at..at, frames);
        element(&mut data_set, (0x7FE0, 0x0010), b"OW", &pixels);
        self.instance(number, EXPLICIT, data_set)
    }

    /// The `number`th image in RLE (PS3.5 Annex G), as literal runs: something to decode.
    pub fn rle(&self, number: u16) -> Instance {
        let pixels = noise(usize::from(self.side).pow(2), u64::from(number));
        // The high bytes, then the low ones.
        let segments: Vec<Vec<u8>> = [1, 0]
            .map(|byte| {
                let plane: Vec<u8> = pixels.iter().skip(byte).step_by(2).copied().collect();
                let runs = plane.chunks(128);
                runs.flat_map(|run| [&[(run.len() - 1) as u8], run].concat())
                    .collect()
            })
            .into();
        let mut frame = vec![0; 64];
        frame[0] = 2;
        frame[4] = 64;
        let second = u32::try_from(64 + segments[0].len()).unwrap();
        frame[8..12].copy_from_slice(&second.to_le_bytes());
        frame.extend(segments.concat());
        frame.resize(frame.len().next_multiple_of(2), 0);
        self.compressed(number, "1.2.840.10008.1.2.5", &frame)
    }

    /// An image in a compressed transfer syntax with one fragment.
    pub fn compressed(&self, number: u16, transfer_syntax: &str, fragment: &[u8]) -> Instance {
        let mut data_set = self.header(number);
        data_set.extend([0xE0, 0x7F, 0x10, 0x00, b'O', b'B', 0, 0]);
        data_set.extend([0xFF; 4]);
        // An empty offset table, the fragment, the delimiter (PS3.5 Table A.4-1).
        data_set.extend([0xFE, 0xFF, 0x00, 0xE0, 0, 0, 0, 0]);
        data_set.extend([0xFE, 0xFF, 0x00, 0xE0]);
        data_set.extend(u32::try_from(fragment.len()).unwrap().to_le_bytes());
        data_set.extend_from_slice(fragment);
        data_set.extend([0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0]);
        self.instance(number, transfer_syntax, data_set)
    }

    /// SOP Instance UID of the `number`th image.
    pub fn sop_instance(&self, number: u16) -> String {
        format!("{}.{number}", self.root)
    }

    fn instance(&self, number: u16, transfer_syntax: &str, data_set: Vec<u8>) -> Instance {
        Instance {
            sop_class: self.sop_class.to_owned(),
            sop_instance: self.sop_instance(number),
            transfer_syntax: transfer_syntax.to_owned(),
            data_set,
        }
    }

    fn header(&self, number: u16) -> Vec<u8> {
        let series = format!("{}.0", self.root);
        let number_text = number.to_string();
        let mut out = Vec::new();
        let mut text = |tag, vr: &[u8; 2], value: &str| {
            let pad = if vr == b"UI" { '\0' } else { ' ' };
            let mut value = value.to_owned();
            if value.len() % 2 == 1 {
                value.push(pad);
            }
            element(&mut out, tag, vr, value.as_bytes());
        };
        text((0x0008, 0x0016), b"UI", self.sop_class);
        text((0x0008, 0x0018), b"UI", &self.sop_instance(number));
        text((0x0008, 0x0020), b"DA", "20260102");
        text((0x0008, 0x0050), b"SH", &self.accession_number);
        text((0x0008, 0x0060), b"CS", self.modality);
        text((0x0010, 0x0010), b"PN", &self.patient_name);
        text((0x0010, 0x0020), b"LO", &self.patient_id);
        text((0x0018, 0x0015), b"CS", "CHEST");
        text((0x0018, 0x5101), b"CS", "PA");
        text((0x0020, 0x000D), b"UI", &self.uid);
        text((0x0020, 0x000E), b"UI", &series);
        text((0x0020, 0x0013), b"IS", &number_text);
        let mut short = |tag, value: u16| element(&mut out, tag, b"US", &value.to_le_bytes());
        short((0x0028, 0x0002), 1);
        element(&mut out, (0x0028, 0x0004), b"CS", b"MONOCHROME2 ");
        let mut short = |tag, value: u16| element(&mut out, tag, b"US", &value.to_le_bytes());
        short((0x0028, 0x0010), self.side);
        short((0x0028, 0x0011), self.side);
        short((0x0028, 0x0100), 16);
        short((0x0028, 0x0101), 12);
        short((0x0028, 0x0102), 11);
        short((0x0028, 0x0103), 0);
        element(&mut out, (0x0028, 0x1050), b"DS", b"2048");
        element(&mut out, (0x0028, 0x1051), b"DS", b"4096");
        if let Some(priority) = self.priority {
            let padded = format!(
                "{priority:<width$}",
                width = priority.len().next_multiple_of(2)
            );
            element(&mut out, (0x0040, 0x1003), b"SH", padded.as_bytes());
        }
        out
    }
}

/// A UID that nobody has used (PS3.5 B.2).
pub fn new_uid() -> String {
    format!("2.25.{}", uuid::Uuid::new_v4().as_u128())
}

/// An element in explicit VR little endian (PS3.5 §7.1.2).
fn element(out: &mut Vec<u8>, (group, number): (u16, u16), vr: &[u8; 2], value: &[u8]) {
    out.extend(group.to_le_bytes());
    out.extend(number.to_le_bytes());
    out.extend(vr);
    if matches!(vr, b"OB" | b"OW") {
        out.extend([0, 0]);
        out.extend(u32::try_from(value.len()).unwrap().to_le_bytes());
    } else {
        out.extend(u16::try_from(value.len()).unwrap().to_le_bytes());
    }
    out.extend(value);
}

/// Twelve-bit noise that the seed decides (xorshift).
fn noise(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 40) as u16 & 0x0FFF).to_le_bytes()
    };
    (0..count).flat_map(|_| next()).collect()
}
